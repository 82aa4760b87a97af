"""A folder of token files that belong together, made whole or not at all."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_plugins.datamodules.tokens.corpus import Corpus
from lightning_plugins.datamodules.tokens.token_file import read_token_file, write_token_file
from lightning_plugins.datamodules.tokens.tokenizer import Tokenizer

_DESCRIPTION = "tokens.json"


@dataclass(frozen=True)
class PreparedTokens:
    """Token files of one corpus under one tokenizer.

    Attributes:
        folder: with ``PART.bin``, ``tokenizer.json`` and ``tokens.json``.
        vocab_size: of the tokenizer.
        bytes_per_token: part -> bytes of UTF-8 a token, by which bits a byte are counted.
    """

    folder: Path
    vocab_size: int
    bytes_per_token: dict[str, float]

    def tokens(self, part: str) -> np.ndarray:
        """The tokens of a part, mapped and not loaded."""
        return read_token_file(self.folder / f"{part}.bin")

    @classmethod
    def load(cls, folder: Path, corpus_sha256: str) -> "PreparedTokens":
        """Open a folder, and see that it is of this corpus.

        Raises:
            ValueError: incomplete, corrupt, or of another corpus.
        """
        path = folder / _DESCRIPTION
        try:
            stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
            found = cls(folder, int(stored["vocab_size"]), dict(stored["bytes_per_token"]))
            of_corpus = stored["corpus_sha256"]
            counts = dict(stored["num_tokens"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is missing or unreadable ({type(error).__name__}): remove {folder} and "
                "prepare it again"
            ) from error
        if of_corpus != corpus_sha256:
            raise ValueError(
                f"{folder} was made from another corpus than this one: remove it, or give another "
                "data_dir"
            )
        for part, count in counts.items():
            if len(found.tokens(part)) != count:
                raise ValueError(
                    f"{folder / part}.bin has not the {count} tokens that {path.name} says: remove "
                    f"{folder} and prepare it again"
                )
        return found


def prepare(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Write the token files of ``corpus`` into ``folder``, which must not exist.

    They are made in a temporary folder beside it that is renamed at the end, so that a preparation
    that is killed leaves nothing under this name.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        counts, ratios = {}, {}
        for part, documents in corpus.parts.items():
            counts[part] = write_token_file(
                temporary / f"{part}.bin", tokenizer.encode(documents), tokenizer.vocab_size
            )
            num_bytes = sum(len(document.encode()) for document in documents)
            ratios[part] = num_bytes / max(1, counts[part])
        description = {
            "corpus": corpus.name,
            "corpus_sha256": corpus.sha256,
            "tokenizer_sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "num_tokens": counts,
            "bytes_per_token": ratios,
        }
        (temporary / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
        (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
