"""Corpora of a mixture, and corpora that are already tokens."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_plugins.datamodules.tokens.corpus import HubCorpus
from lightning_plugins.datamodules.tokens.token_file import map_tokens

_PART = re.compile(r"(?:^|[_.-])(train|val|test)(?=[_.-])")
_CHECKED_BYTES = 2**28


@dataclass(frozen=True)
class BinCorpus:
    """Token files as nanoGPT or modded-nanogpt write them; they are mapped, not copied.

    The folder has ``train.bin`` and ``val.bin``, or several files such as
    ``fineweb_train_000001.bin`` and ``fineweb_val_000000.bin``: tokens of 16 bits, without a header
    or with that of modded-nanogpt; or of 32 bits with that of llm.c for Llama 3. In YAML::

        corpus:
          folder: data/openwebtext
          vocab_size: 50257
          end_of_document: 50256

    Args:
        folder: Folder of the files.
        vocab_size: Vocabulary size of their tokenizer; None means that of ``tokenizer``.
        end_of_document: Token that ends a document; None means that of ``tokenizer``.
    """

    folder: str
    vocab_size: int | None = None
    end_of_document: int | None = None

    @property
    def name(self) -> str:
        """The folder."""
        return self.folder

    def files(self) -> dict[str, list[Path]]:
        """Return the files of each part, in order.

        Raises:
            ValueError: There are no files for training or validation.
        """
        parts: dict[str, list[Path]] = {}
        for path in sorted(Path(self.folder).glob("*.bin")):
            if found := _PART.search(path.name):
                parts.setdefault(found[1], []).append(path)
        for part in ("train", "val"):
            if part not in parts:
                raise ValueError(
                    f"corpus 'bin:{self.folder}' has no file for {part}: expected {part}.bin or "
                    f"NAME_{part}_NUMBER.bin"
                )
        return parts

    def check(self, files: Sequence[Path], vocab_size: int) -> None:
        """Refuse files of another format, and tokens outside of the vocabulary.

        Of large files, the first 256 MB are read.

        Raises:
            ValueError: A file is of another program, has tokens of another size, or has a token
                outside of the vocabulary.
        """
        for path in files:
            if path.with_suffix(".idx").exists():
                raise ValueError(
                    f"{path} has an index beside it, as Megatron writes, which is not read: "
                    "convert the tokens to 16 bits without a header"
                )
            tokens = map_tokens(path)[: _CHECKED_BYTES // 2]
            is_half_empty = len(tokens) >= 32 and tokens[::2].any() and not tokens[1::2].any()
            if tokens.itemsize == 2 and (vocab_size > 2**16 or is_half_empty):
                raise ValueError(
                    f"{path} would have tokens of 16 bits, but "
                    f"{'every second one is 0' if is_half_empty else f'{vocab_size=}'}: tokens of "
                    "32 bits need the header of llm.c (256 integers: 20240801, 7, number of tokens)"
                )
            largest = int(tokens.max(initial=0))
            if largest >= vocab_size:
                raise ValueError(
                    f"{path} has the token {largest}, outside of the vocabulary of {vocab_size}: "
                    "set tokenizer, or vocab_size of the corpus, to that of the files"
                )


@dataclass(frozen=True)
class CorpusShare:
    """One corpus of a mixture.

    Args:
        corpus: As ``TokenDataModule(corpus=...)``, except a list.
        epochs: Passes over this corpus in one epoch of the mixture; may be a fraction.
        weight: Instead of ``epochs``: the share of this corpus in the windows, relative to the
            weights of the others. An epoch ends when the first corpus was visited once.

    Raises:
        ValueError: ``epochs`` or ``weight`` is not positive, or both are given.
    """

    corpus: str | HubCorpus | BinCorpus
    epochs: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.weight is not None:
            raise ValueError(
                f"epochs={self.epochs} and weight={self.weight}: a corpus has one of both"
            )
        for name in ("epochs", "weight"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value}: expected a number above 0")


def windows_per_epoch(shares: Sequence[CorpusShare], sizes: Sequence[int]) -> list[int]:
    """Return the windows of each corpus in an epoch of the mixture.

    Args:
        shares: The corpora.
        sizes: Windows of each corpus.

    Raises:
        ValueError: Some corpora have weights and some do not, or a corpus would have no window.
    """
    weights = [share.weight for share in shares if share.weight is not None]
    if weights and len(weights) < len(shares):
        raise ValueError("corpus: either all corpora of a mixture have a weight, or none")
    if weights:
        longest = min(size / weight for size, weight in zip(sizes, weights, strict=True))
        found = [round(weight * longest) for weight in weights]
    else:
        found = [
            round(size * (1.0 if share.epochs is None else share.epochs))
            for share, size in zip(shares, sizes, strict=True)
        ]
    if 0 in found:
        share = shares[found.index(0)]
        raise ValueError(
            f"corpus: {share} has {sizes[found.index(0)]} windows, which is none in an epoch of "
            "the mixture; increase its epochs or weight"
        )
    return found
