"""Corpora: documents in parts for training, validation and test."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from lightning_plugins.assets import asset_path
from lightning_plugins.optional_packages import requires

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


_KNOWN = {
    "c4": ("allenai/c4", "en"),
    "openwebtext": ("Skylion007/openwebtext", None),
    "minipile": ("JeanKaddour/minipile", None),
}
_VALIDATION_SPLITS = ("validation", "valid", "val")


@dataclass(frozen=True)
class HubCorpus:
    """A data set of the ``datasets`` package, read document by document and never held whole.

    ``hub:c4`` is short for ``HubCorpus("c4")``. In YAML::

        data:
          class_path: lightning_plugins.datamodules.TokenDataModule
          init_args:
            corpus:
              name: c4
              max_documents: 4000000

    Its splits ``train``, ``validation`` (or ``valid``, ``val``) and ``test`` become the parts.
    Where there is no validation split, as in OpenWebText, a share of the training documents is held
    out, chosen by a hash of the text, so that all copies of a document are on one side.

    The fingerprint is that of these arguments and, for a folder, of the names, sizes and times of
    its files: what was prepared is found again without a network. It does not see that a data set
    changed on the hub, unless ``revision`` says which one is meant; the hash of the text that was
    read stands in ``tokens.json``.

    Args:
        name: ``c4``, ``openwebtext``, ``minipile``, another name on the hub such as
            ``HuggingFaceFW/fineweb-edu``, or a folder: one that ``save_to_disk`` wrote, or of
            files that ``datasets.load_dataset`` reads (``train.parquet``, ``train-*.jsonl.gz``, …).
        config: configuration of the data set; None is its default, for ``c4`` English.
        revision: branch, tag or, to be exact, commit on the hub.
        column: that holds the text.
        held_out: share of the documents for validation where there is no split for it.
        max_documents: read only the first of each split.

    Raises:
        ValueError: an argument outside its range.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    column: str = "text"
    held_out: float = 0.0005
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("corpus.name='': expected a data set of the hub or a folder")
        if not 0 < self.held_out < 1:
            raise ValueError(f"corpus.held_out={self.held_out}: expected between 0 and 1")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"corpus.max_documents={self.max_documents}: expected at least 1")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the arguments and of the list of a folder's files."""
        folder = Path(self.name)
        files = [
            (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        identity = [*self._source, self.revision, self.column, self.held_out, self.max_documents]
        return hashlib.sha256(json.dumps([*identity, files]).encode()).hexdigest()

    @property
    def num_bytes(self) -> None:
        """Not known before it is read."""

    def documents(self) -> Iterator[tuple[str, str]]:
        """The documents in the data set's order, those for validation and test first.

        Raises:
            ImportError: without ``datasets``.
            FileNotFoundError: neither reachable nor there; the message says what to do.
            ValueError: no training split, or no text in ``column``.
        """
        splits = self._splits()
        if "train" not in splits:
            raise ValueError(
                f"corpus {self.name!r} has the splits {sorted(splits)}: expected one named train"
            )
        validation = next((name for name in _VALIDATION_SPLITS if name in splits), None)
        # First the small parts, so that what is wrong with them is not found out after hours.
        for part, split in (("val", validation), ("test", "test")):
            if split is not None and split in splits:
                for text in self._texts(splits[split]):
                    yield part, text
        for text in self._texts(splits["train"]):
            held_out = validation is None and _uniform(text) < self.held_out
            yield ("val" if held_out else "train"), text

    @property
    def _source(self) -> tuple[str, str | None]:
        if Path(self.name).is_dir():
            return self.name, self.config
        name, config = _KNOWN.get(self.name, (self.name, None))
        return name, self.config or config

    def _splits(self) -> Mapping[str, Any]:
        with requires("datasets", by=f"corpus {self.name!r}", extra="text"):
            import datasets
        name, config = self._source
        folder = Path(name)
        try:
            if (folder / "dataset_dict.json").is_file():
                return datasets.load_from_disk(name)
            if (folder / "state.json").is_file():
                return {"train": datasets.load_from_disk(name)}
            return datasets.load_dataset(name, config, revision=self.revision, streaming=True)
        # The package and its transport have exception classes of their own for "not there".
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise FileNotFoundError(
            f"corpus {self.name!r}: the data set {name}{f' ({config})' if config else ''} cannot "
            f"be read ({reason}). Without a network, fetch it once where there is one, with "
            f"`hf download --repo-type dataset {name} --local-dir FOLDER`, and set "
            "corpus='hub:FOLDER'; with one, unset HF_HUB_OFFLINE. Where the hub has a loading "
            "script instead of files, set revision='refs/convert/parquet'."
        )

    def _texts(self, split: Any) -> Iterator[str]:
        for row in islice(split, self.max_documents):
            text = row.get(self.column)
            if not isinstance(text, str):
                raise ValueError(
                    f"corpus.column={self.column!r}: a row of {self.name!r} has no text there; its "
                    f"columns are {sorted(row)}"
                )
            yield text


def _uniform(text: str) -> float:
    """A number in [0, 1) that is a function of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
