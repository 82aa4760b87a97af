"""A build backend that runs none of a source archive's code.

pip asks a backend for the metadata of every source archive it downloads, and the usual backend
runs the archive's ``setup.py`` for that. :mod:`lightning_plugins.assets.download` shows pip this
file under the name ``setuptools.build_meta`` instead: it answers from ``PKG-INFO``, which every
published source archive carries. Standard library only, and nothing of this package: pip runs it
in a bare process.
"""

from email.parser import HeaderParser
from pathlib import Path


class _MetadataOnlyBackend:
    """The hooks of PEP 517 that ``pip download`` calls, in the source archive's folder."""

    def get_requires_for_build_wheel(self, config_settings: object = None) -> list[str]:
        """Nothing is needed to copy a name and a version."""
        return []

    def prepare_metadata_for_build_wheel(
        self, metadata_directory: str, config_settings: object = None
    ) -> str:
        """Write a ``.dist-info`` folder with the name and version of ``PKG-INFO``."""
        with Path("PKG-INFO").open(encoding="utf-8", errors="replace") as file:
            headers = HeaderParser().parse(file, headersonly=True)
        name, version = headers["Name"], headers["Version"]
        folder = Path(metadata_directory) / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(metadata, encoding="utf-8")
        return folder.name


__legacy__ = _MetadataOnlyBackend()
