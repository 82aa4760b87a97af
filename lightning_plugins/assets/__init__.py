"""Real data and weights that any package index serves, kept in a cache folder of their own.

``lightning-plugins assets install`` puts them there; :func:`asset_path` says where one stands.
Nothing of an asset is imported, and its folder is never on ``sys.path``.
"""

from lightning_plugins.assets.cache import CorruptedAssetError, asset_path
from lightning_plugins.assets.catalogue import CATALOGUE, Asset

__all__ = ["CATALOGUE", "Asset", "CorruptedAssetError", "asset_path"]
