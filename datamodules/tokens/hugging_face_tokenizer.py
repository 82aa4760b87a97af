"""Any tokenizer of the transformers library."""

import json
from collections.abc import Sequence

import numpy as np


class HuggingFaceTokenizer:
    """A tokenizer that ``transformers.AutoTokenizer`` finds; never runs code that comes with it.

    Documents are encoded whole, without the special tokens that it may add around a text, and
    followed by its end-of-sequence token. A text that spells a special token out is encoded as
    text. Fast tokenizers use all their threads; others one.

    Args:
        name: on the hub, or a local folder.

    Raises:
        ImportError: without ``transformers``.
        ValueError: there is no such tokenizer, or it has no end-of-sequence token.
    """

    def __init__(self, name: str) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError(
                f'tokenizer={name!r} needs transformers: pip install "lightning-plugins[text]"'
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        # The hub's client has exception classes of its own for "not there".
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise ValueError(
                f"tokenizer={name!r}: expected 'bytes', 'bpe', or a tokenizer of transformers, and "
                f"none of this name can be read ({reason}). Without a network, fetch it once where "
                f"there is one, with `hf download {name} --local-dir FOLDER`, and set "
                "tokenizer=FOLDER"
            ) from error
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"tokenizer={name!r} has no end-of-sequence token, which ends a document: save it "
                "with one (eos_token) and give its folder"
            )
        self.vocab_size = len(tokenizer)
        self.end_of_document: int = tokenizer.eos_token_id
        self._tokenizer = tokenizer
        # Now, because encoding changes truncation and padding, which are part of it.
        self._json = (
            tokenizer.backend_tokenizer.to_str()
            if tokenizer.is_fast
            else json.dumps(
                {"type": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}, sort_keys=True
            )
        )

    def encode(self, documents: Sequence[str]) -> np.ndarray:
        """As ``tokenizer(document, add_special_tokens=False)``, and the end."""
        encoded = self._tokenizer(
            list(documents),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        end = np.array([self.end_of_document], np.uint32)
        return np.concatenate(
            [part for tokens in encoded for part in (np.asarray(tokens, np.uint32), end)]
        )

    def to_json(self) -> str:
        """As ``tokenizers.Tokenizer.from_str`` reads it, where it is a fast one."""
        return self._json
