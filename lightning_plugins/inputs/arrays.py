"""Arrays of bounded size."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_plugins.inputs.limits import require
from lightning_plugins.inputs.messages import quoted

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

    import numpy as np


def check_array_bytes(sizes: Sequence[int], what: str) -> None:
    """Check the total size of arrays that are to be read.

    Args:
        sizes: Bytes of each array, decompressed.
        what: Origin of the arrays, for the message.

    Raises:
        LimitError: They are too large.
    """
    require("array_bytes", sum(sizes), what)


def read_npz(path: str | os.PathLike[str]) -> dict[str, "np.ndarray"]:
    """Return the arrays of an ``.npz`` file; objects are refused, since they would be unpickled.

    Raises:
        LimitError: The arrays are too large; none was read.
        ValueError: The file is not an npz file of plain arrays.
        FileNotFoundError: The file does not exist.
    """
    import zipfile
    import zlib

    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            check_array_bytes([_array_bytes(archive, e) for e in archive.infolist()], str(path))
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError) as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error


_LONGEST_HEADER = 10_000  # NumPy's own limit, which it checks after it has read the header


def _array_bytes(archive: "ZipFile", entry: "ZipInfo") -> int:
    """Return the larger of the sizes that the archive and the array's own header state."""
    import math

    from numpy.lib import format as npy

    with archive.open(entry) as file:
        version = npy.read_magic(file)
        size = file.read(2 if version == (1, 0) else 4)
        if int.from_bytes(size, "little") > _LONGEST_HEADER:
            raise ValueError(f"{quoted(entry.filename)}: the header of the array is too long")
        file.seek(0)
        npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    return max(entry.file_size, math.prod(shape) * dtype.itemsize)
