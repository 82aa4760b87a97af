"""Memory-mapped token files.

Layout, little-endian: a header of 256 integers of 32 bits, then the tokens. The header contains the
magic number 20240520; the version, 1 for tokens of 16 bits and 2 for 32 bits; the low and high 32
bits of the number of tokens; four zeros; the SHA-256 of the tokens' bytes in eight integers; and
zeros. For up to 2^31 tokens of 16 bits this is the format of modded-nanogpt, which reads the first
three integers. llm.c writes tokens of 32 bits for Llama 3 with the magic number 20240801 and the
version 7.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = 20240520
_MAGIC_OF_LLAMA_3 = 20240801
_HEADER_INTEGERS = 256
_HASH = slice(8, 16)
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u2"), 2: np.dtype("<u4")}
_NUMPY = b"\x93NUMPY"


def read_token_file(path: Path, verify: bool = False) -> np.ndarray:
    """Memory-map the tokens as unsigned integers of shape (num_tokens,).

    Args:
        path: Path of the file.
        verify: Read the whole file and compare it with its hash.

    Raises:
        ValueError: The file is not a token file, has the wrong length, or was changed.
    """
    size_bytes = path.stat().st_size
    header = np.fromfile(path, dtype="<u4", count=_HEADER_INTEGERS)
    magic_and_version = header[:2].tolist()
    is_of_llama_3 = magic_and_version == [_MAGIC_OF_LLAMA_3, 7]
    is_ours = magic_and_version in [[_MAGIC, version] for version in _DTYPES]
    if len(header) < _HEADER_INTEGERS or not (is_ours or is_of_llama_3):
        raise ValueError(f"{path} is not a token file: its header is invalid; prepare it again")
    dtype = np.dtype("<u4") if is_of_llama_3 else _DTYPES[int(header[1])]
    num_tokens = int(header[2]) + (int(header[3]) << 32)
    expected_bytes = 4 * _HEADER_INTEGERS + num_tokens * dtype.itemsize
    if size_bytes != expected_bytes:
        raise ValueError(
            f"{path} has {size_bytes} bytes, but its header specifies {num_tokens} tokens, "
            f"{expected_bytes} bytes: the file is corrupt; remove it and prepare it again"
        )
    if verify and _hash_of_tokens(path) != header[_HASH].tobytes():
        raise ValueError(
            f"{path} is corrupt: the SHA-256 of its tokens differs from the header; remove it and "
            "prepare it again"
        )
    if num_tokens == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r", offset=4 * _HEADER_INTEGERS, shape=(num_tokens,))


def map_tokens(path: Path) -> np.ndarray:
    """Memory-map the tokens of a file with such a header, or of nanoGPT's: 16 bits without one.

    Raises:
        ValueError: The file is neither, or has the wrong length.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_NUMPY):
        raise ValueError(f"{path} is an array of numpy: write its tokens with array.tofile(PATH)")
    if int.from_bytes(start[:4], "little") in (_MAGIC, _MAGIC_OF_LLAMA_3):
        return np.asarray(read_token_file(path))
    size_bytes = path.stat().st_size
    if size_bytes == 0 or size_bytes % 2:
        raise ValueError(
            f"{path} has {size_bytes} bytes: expected a header of modded-nanogpt, or tokens of 16 "
            "bits as nanoGPT writes them"
        )
    return np.asarray(np.memmap(path, "<u2", mode="r"))


def write_token_file(path: Path, chunks: Iterable[np.ndarray], vocab_size: int) -> int:
    """Write chunks of tokens to a temporary file and rename it at the end.

    Args:
        path: Path of the file; an existing file is replaced.
        chunks: Token numbers below ``vocab_size``.
        vocab_size: Vocabulary size; up to 65536 the tokens have 16 bits, above 32 bits.

    Returns:
        The number of tokens.

    Raises:
        ValueError: A token is outside the vocabulary, or the vocabulary exceeds 2^32 tokens.
    """
    if not 1 <= vocab_size <= 2**32:
        raise ValueError(
            f"vocab_size={vocab_size}: expected 1 to 2^32, because a token has at most 32 "
            "bits; use a tokenizer with fewer tokens"
        )
    version = 1 if vocab_size <= 2**16 else 2
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    num_tokens, digest = 0, hashlib.sha256()
    try:
        with temporary.open("wb") as file:
            file.write(bytes(4 * _HEADER_INTEGERS))
            for chunk in chunks:
                if len(chunk) and not 0 <= int(chunk.min()) <= int(chunk.max()) < vocab_size:
                    raise ValueError(
                        f"a token is {int(chunk.max())}, outside the vocabulary of {vocab_size}: "
                        "use the tokenizer of this vocabulary"
                    )
                content = chunk.astype(_DTYPES[version]).tobytes()
                digest.update(content)
                file.write(content)
                num_tokens += len(chunk)
            header = np.zeros(_HEADER_INTEGERS, "<u4")
            header[:4] = _MAGIC, version, num_tokens & 0xFFFFFFFF, num_tokens >> 32
            header[_HASH] = np.frombuffer(digest.digest(), "<u4")
            file.seek(0)
            file.write(header.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return num_tokens


def _hash_of_tokens(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(4 * _HEADER_INTEGERS)
        return hashlib.file_digest(file, "sha256").digest()
