"""Statistics of a part of a corpus, and baselines that require no model."""

import hashlib
import lzma
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

XZ_BYTES = 2**24
# The preset's dictionary of 2^26 bytes would use 0.7 GB; the text is never longer than 2^24.
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": XZ_BYTES}]


@dataclass(frozen=True)
class PartStatistics:
    """Statistics of one part of a corpus with one tokenizer.

    Attributes:
        num_documents: Number of documents with text.
        num_bytes: Bytes of the text in UTF-8.
        num_tokens: Number of tokens, including the ends of documents.
        text_sha256: SHA-256 of the documents in order, in hexadecimal.
        unigram_bits_per_token: Entropy of the token frequencies in this part, a lower bound for
            every model that ignores the context.
        xz_bits_per_byte: Bits per byte after ``xz -9e`` of the first 2^24 bytes of the text, with a
            zero byte between documents; None if it was not computed. The compressor does not use
            the training text.
    """

    num_documents: int
    num_bytes: int
    num_tokens: int
    text_sha256: str
    unigram_bits_per_token: float
    xz_bits_per_byte: float | None

    @property
    def bytes_per_token(self) -> float:
        """Bytes per token, to convert bits per token to bits per byte."""
        return self.num_bytes / max(1, self.num_tokens)


def pooled(parts: Sequence[PartStatistics]) -> dict[str, float]:
    """Return the values of :class:`PartStatistics` that the texts of several corpora have together.

    The entropy of token frequencies is known for a single corpus only.
    """
    num_bytes = sum(part.num_bytes for part in parts)
    found = {"bytes_per_token": num_bytes / max(1, sum(part.num_tokens for part in parts))}
    sizes = [(part.xz_bits_per_byte, part.num_bytes) for part in parts]
    bits = [size * number for size, number in sizes if size is not None]
    if len(bits) == len(parts):
        found["xz_bits_per_byte"] = sum(bits) / max(1, num_bytes)
    if len(parts) == 1:
        found["unigram_bits_per_token"] = parts[0].unigram_bits_per_token
    return found


class StatisticsOfText:
    """Accumulates the statistics of a part's text over its documents.

    Args:
        with_xz: Also compress the text.
    """

    def __init__(self, with_xz: bool) -> None:
        self.num_documents = self.num_bytes = 0
        self._digest = hashlib.sha256()
        self._xz = lzma.LZMACompressor(filters=_XZ_FILTERS) if with_xz else None
        self._xz_bytes_in = self._xz_bytes_out = 0

    def add(self, documents: Sequence[bytes]) -> None:
        """Add documents in UTF-8."""
        for document in documents:
            self.num_documents += 1
            self.num_bytes += len(document)
            self._digest.update(f"{len(document)}\0".encode() + document)
            if self._xz is not None and self._xz_bytes_in < XZ_BYTES:
                content = (document + b"\0")[: XZ_BYTES - self._xz_bytes_in]
                self._xz_bytes_in += len(content)
                self._xz_bytes_out += len(self._xz.compress(content))

    def with_token_counts(self, counts: np.ndarray) -> PartStatistics:
        """Return the statistics for the given count of each token, ``(vocab_size,)``."""
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
    """Compute the entropy in bits of the distribution given by counts."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0
