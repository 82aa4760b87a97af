"""What a part of a corpus holds, and how far methods without a model get on it."""

import hashlib
import lzma
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

XZ_BYTES = 2**24
# The preset's own dictionary of 2^26 bytes needs 0.7 GB, and the text is no longer than this one.
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": XZ_BYTES}]


@dataclass(frozen=True)
class PartStatistics:
    """Of one part of a corpus under one tokenizer.

    Attributes:
        num_documents: with text.
        num_bytes: of the text in UTF-8.
        num_tokens: with the ends of the documents.
        text_sha256: of the documents in order, in hexadecimal.
        unigram_bits_per_token: entropy of the tokens' frequencies in this part, which no model
            that ignores the context can fall below.
        xz_bits_per_byte: what ``xz -9e`` makes of the part's text, documents separated by a zero
            byte and no more than the first 2^24 bytes of it; None where it was not asked for. It
            knows nothing of the training text.
    """

    num_documents: int
    num_bytes: int
    num_tokens: int
    text_sha256: str
    unigram_bits_per_token: float
    xz_bits_per_byte: float | None

    @property
    def bytes_per_token(self) -> float:
        """By which bits a byte are counted."""
        return self.num_bytes / max(1, self.num_tokens)


class StatisticsOfText:
    """Adds up what concerns the text of a part, documents as they come.

    Args:
        with_xz: compress it.
    """

    def __init__(self, with_xz: bool) -> None:
        self.num_documents = self.num_bytes = 0
        self._digest = hashlib.sha256()
        self._xz = lzma.LZMACompressor(filters=_XZ_FILTERS) if with_xz else None
        self._xz_bytes_in = self._xz_bytes_out = 0

    def add(self, documents: Sequence[bytes]) -> None:
        """The next documents, in UTF-8."""
        for document in documents:
            self.num_documents += 1
            self.num_bytes += len(document)
            self._digest.update(f"{len(document)}\0".encode() + document)
            if self._xz is not None and self._xz_bytes_in < XZ_BYTES:
                content = (document + b"\0")[: XZ_BYTES - self._xz_bytes_in]
                self._xz_bytes_in += len(content)
                self._xz_bytes_out += len(self._xz.compress(content))

    def with_token_counts(self, counts: np.ndarray) -> PartStatistics:
        """The result, given how often each token is there: ``(vocab_size,)``."""
        bits_per_byte = None
        if self._xz is not None and self._xz_bytes_in:
            self._xz_bytes_out += len(self._xz.flush())
            bits_per_byte = 8 * self._xz_bytes_out / self._xz_bytes_in
        return PartStatistics(
            num_documents=self.num_documents,
            num_bytes=self.num_bytes,
            num_tokens=int(counts.sum()),
            text_sha256=self._digest.hexdigest(),
            unigram_bits_per_token=entropy_bits(counts),
            xz_bits_per_byte=bits_per_byte,
        )


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy in bits of the distribution that the counts are proportional to."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0
