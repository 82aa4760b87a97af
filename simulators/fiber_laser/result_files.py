"""Results on disk: arrays with units, as npz or HDF5. Loading executes no code."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .amplifier_result import AmplifierResult
from .chain import ChainResult
from .file_limits import check_array_bytes, parse_json, quoted, read_npz

FORMAT = "fiber-laser result"
FORMAT_VERSION = 1
_UNITS = {
    "edges_m": "m",
    "excitation": "1",
    "forward_w": "W",
    "backward_w": "W",
    "heat_w_per_m": "W/m",
    "wavelengths_nm": "nm",
}


def save_result(path: str | os.PathLike[str], result: AmplifierResult | ChainResult) -> Path:
    """Write the profiles, powers and figures of a result; the suffix selects the format.

    The file is written under a temporary name and renamed, so it is never incomplete.

    Args:
        path: Name that ends in ``.npz``, or in ``.h5`` or ``.hdf5`` (requires h5py).
        result: Result of an amplifier or a chain.

    Raises:
        ValueError: The suffix is unknown.
        ImportError: h5py is missing.
    """
    target = Path(path)
    stages = _stages(result)
    arrays = {
        f"{name}/{quantity}": values
        for name, stage in stages.items()
        for quantity, values in _profiles(stage).items()
    }
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": _versions(),
        "units": _UNITS,
        "stages": list(stages),
        "figures": {name: stage.summary() for name, stage in stages.items()},
        "glass": {name: stage.amplifier.spectroscopy.name for name, stage in stages.items()},
    }
    partial = target.with_name(target.name + ".part")
    try:
        if target.suffix == ".npz":
            with partial.open("wb") as file:
                arrays["head"] = np.array(json.dumps(head))
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        elif target.suffix in (".h5", ".hdf5"):
            _write_hdf5(partial, head, arrays)
        else:
            raise ValueError(
                f"path = {str(path)!r}: allowed is a name ending in .npz, .h5 or .hdf5"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def load_result(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a file of :func:`save_result`: the head (units, versions, figures) and the arrays.

    Raises:
        ValueError: The file is of another kind or of a newer format.
    """
    source = Path(path)
    if source.suffix in (".h5", ".hdf5"):
        head, arrays = _read_hdf5(source)
    else:
        arrays = read_npz(source)
        if "head" not in arrays:
            raise ValueError(f"{source} is not a {FORMAT}")
        head = parse_json(str(arrays.pop("head")), str(source))
    version = head.get("format_version") if isinstance(head, dict) else None
    if version is None or head.get("format") != FORMAT or not isinstance(version, int):
        raise ValueError(f"{source} is not a {FORMAT}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{source}: format {quoted(version)} is newer than {FORMAT_VERSION}; update "
            "this package"
        )
    return head, arrays


def _stages(result: AmplifierResult | ChainResult) -> dict[str, AmplifierResult]:
    if isinstance(result, ChainResult):
        return dict(zip(result.names, result.stages, strict=True))
    return {"amplifier": result}


def _profiles(stage: AmplifierResult) -> dict[str, np.ndarray]:
    profiles = {name: np.asarray(getattr(stage, name)) for name in _UNITS if hasattr(stage, name)}
    return profiles | {"wavelengths_nm": stage.amplifier.wavelengths_nm}


def _versions() -> dict[str, str]:
    import scipy  # type: ignore[import-untyped]

    from . import __version__

    return {"fiber_laser": __version__, "numpy": np.__version__, "scipy": scipy.__version__}


def _write_hdf5(path: Path, head: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    h5py = _h5py()
    with h5py.File(path, "w") as file:
        file.attrs["head"] = json.dumps(head)
        for name, values in arrays.items():
            file.create_dataset(name, data=values).attrs["unit"] = _UNITS[name.rpartition("/")[2]]


def _read_hdf5(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    h5py = _h5py()
    arrays: dict[str, np.ndarray] = {}
    sizes: list[int] = []
    with h5py.File(path, "r") as file:
        if "head" not in file.attrs:
            raise ValueError(f"{path} is not a {FORMAT}")

        def keep(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                if node.external or node.is_virtual or node.dtype.kind not in "fiubc":
                    raise ValueError(f"{path}: {quoted(name)} is not an array inside the file")
                sizes.append(node.nbytes)
                check_array_bytes(sizes, str(path))  # a compressed file can be much smaller
                arrays[name] = node[()]

        file.visititems(keep)
        return parse_json(str(file.attrs["head"]), str(path)), arrays


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError("HDF5 requires h5py: pip install h5py, or save as .npz") from error
