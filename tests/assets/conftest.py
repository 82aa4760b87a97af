"""Small artefacts in a folder that pip uses as a package index."""

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lightning_plugins.assets import Asset

CONTENT = {
    "poems/data/ozymandias.txt": b"I met a traveller from an antique land\n",
    "poems/data/large.bin": bytes(range(256)) * 5000,
    "poems/__init__.py": b"raise SystemExit('code of an asset was run')\n",
}
PATTERNS = ("poems/data/*",)


@dataclass(frozen=True)
class LocalIndex:
    """A folder of artefacts, and the options that restrict pip to it."""

    folder: Path

    @property
    def pip_arguments(self) -> list[str]:
        return ["--no-index", "--find-links", str(self.folder)]

    def add_wheel(self, content: Mapping[str, bytes] = CONTENT) -> Asset:
        """Write a wheel and return the catalogue's entry for it."""
        info = "poems-1.0.dist-info"
        metadata = b"Metadata-Version: 2.1\nName: poems\nVersion: 1.0\n"
        wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        path = self.folder / "poems-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", wheel)
            archive.writestr(f"{info}/RECORD", "")
        return self.entry_for(path)

    def add_source_archive(self, content: Mapping[str, bytes] = CONTENT) -> Asset:
        """Write a source archive whose ``setup.py`` fails, and return its entry."""
        own = {
            "PKG-INFO": b"Metadata-Version: 1.1\nName: poems\nVersion: 1.0\n",
            "setup.py": b"raise SystemExit('code of an asset was run')\n",
        }
        path = self.folder / "poems-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, data in (own | dict(content)).items():
                member = tarfile.TarInfo(f"poems-1.0/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return self.entry_for(path)

    @staticmethod
    def entry_for(path: Path) -> Asset:
        return Asset(
            name="poems",
            version="1.0",
            artefact=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            files=PATTERNS,
            holds="two files",
            licence="public domain",
            terms="credit the poet",
        )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    """An empty index; pip's own configuration is not used."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    folder = tmp_path / "index"
    folder.mkdir()
    return LocalIndex(folder)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder that does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def with_other_hash() -> Callable[[Asset], Asset]:
    """The same entry with the SHA-256 of other bytes."""

    def change(asset: Asset) -> Asset:
        return replace(asset, sha256=hashlib.sha256(b"other").hexdigest())

    return change
