"""C++ kernels for the sign power on CPUs, compiled once for each version of PyTorch."""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("power_kernels.cpp")

# Exponents for which the kernels are accurate; see `factor` in the source.
SMALLEST_P, LARGEST_P = 0.2, 1.98

_SECONDS_TO_COMPILE = 300


@functools.cache
def power_kernels() -> Any | None:
    """Return the operators ``sign_power_`` and ``adamw_power_``, or None if the build fails.

    The first call on a machine compiles them, in about ten seconds; later processes load the
    library from the folder of PyTorch's extensions (``TORCH_EXTENSIONS_DIR``, by default
    ``~/.cache/torch_extensions``). Without a C++ compiler, one warning is issued, and callers
    compute the same with PyTorch's operators.
    """
    try:
        torch.ops.load_library(str(_built_library()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        warnings.warn(
            f"compile=True: the C++ kernels of GradPower are not available ({_reason(error)}); "
            "continuing without them, with the same results and a slower step. Install a C++20 "
            "compiler such as g++ 11 or later, or set CXX to its path",
            stacklevel=2,
        )
        return None
    return torch.ops.lightning_plugins


def _built_library() -> Path:
    """Return the library for this source, compiler and PyTorch; compile it if it is missing."""
    command = _command()
    key = "\n".join([SOURCE.read_text(), *command, torch.__version__, platform.machine()])
    name = f"power_kernels_{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    library = _extensions_folder() / "lightning_plugins" / name
    if library.exists():
        return library
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"no C++ compiler {command[0]!r}")
    library.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may compile at the same time; each replaces the file as a whole.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        output = Path(folder, name)
        subprocess.run(
            [*command, "-o", str(output)],
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_COMPILE,
        )
        output.replace(library)
    return library


def _command() -> list[str]:
    torch_folder = Path(torch.__file__).parent
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    arithmetic = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
    threads = [] if sys.platform == "darwin" else ["-fopenmp"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    libraries = [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    return [
        *compiler,
        *("-std=c++20", "-fPIC", "-shared", "-w", *arithmetic, *threads, abi),
        *("-isystem", str(torch_folder / "include"), str(SOURCE), *libraries),
    ]


def _extensions_folder() -> Path:
    if folder := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch_extensions")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if "error" in line]
        return (lines or error.stderr.splitlines() or ["the compiler failed"])[0]
    return str(error)
