"""A build backend that returns a source archive's metadata without running its code.

pip requests the metadata of every downloaded source archive from a build backend, and the default
backend runs the archive's ``setup.py``. :mod:`lightning_plugins.assets.download` provides this file
to pip under the name ``setuptools.build_meta``. It reads ``PKG-INFO``, which every published source
archive contains. It uses only the standard library, because pip runs it in a bare process.
"""

from email.parser import HeaderParser
from pathlib import Path


class _MetadataOnlyBackend:
    """The PEP 517 hooks that ``pip download`` calls in the source archive's folder."""

    def get_requires_for_build_wheel(self, config_settings: object = None) -> list[str]:
        """Return no requirements: copying name and version needs none."""
        return []

    def prepare_metadata_for_build_wheel(
        self, metadata_directory: str, config_settings: object = None
    ) -> str:
        """Write a ``.dist-info`` folder with the name and version from ``PKG-INFO``."""
        with Path("PKG-INFO").open(encoding="utf-8", errors="replace") as file:
            headers = HeaderParser().parse(file, headersonly=True)
        name, version = headers["Name"], headers["Version"]
        folder = Path(metadata_directory) / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata, encoding="utf-8")
        return folder.name


__legacy__ = _MetadataOnlyBackend()
