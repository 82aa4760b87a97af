"""Text of a Hugging Face data set, streamed from the hub or from a folder."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

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
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f"corpus {self.name!r} is read with the datasets package: "
                'pip install "lightning-plugins[text]"'
            ) from error
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
