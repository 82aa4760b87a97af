"""The built wheel, and bare Python processes that use it."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
_PROCESS_TIMEOUT_SECONDS = 120


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def project_files() -> list[Path]:
    """Files that git tracks or would track, relative to the checkout; all files of an sdist."""
    if not (ROOT / ".git").exists():
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        return sorted(path for path in found if "__pycache__" not in path.parts)
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = (Path(name) for name in listing.stdout.split("\0") if name)
    return sorted(path for path in paths if (ROOT / path).is_file())


@pytest.fixture(scope="session")
def export_checkout(project_files: list[Path]) -> Callable[[Path], Path]:
    """Copies the project's files into a folder, without other files of the checkout."""

    def export(folder: Path) -> Path:
        for path in project_files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, folder / path)
        return folder

    return export


@pytest.fixture(scope="session")
def build_wheel() -> Callable[..., Path]:
    """Builds the wheel of a source folder into another folder, with no network.

    With ``through_sdist``, builds the sdist there too, and the wheel from the unpacked sdist.
    """

    def build(source: Path, into: Path, through_sdist: bool = False) -> Path:
        command = [sys.executable, "-m", "build", "--no-isolation"]
        if not through_sdist:
            command.append("--wheel")
        result = subprocess.run(
            [*command, "--outdir", str(into), str(source)],
            capture_output=True,
            text=True,
            timeout=_PROCESS_TIMEOUT_SECONDS,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        (wheel,) = into.glob("*.whl")
        return wheel

    return build


@pytest.fixture(scope="session")
def wheel(
    export_checkout: Callable[[Path], Path],
    build_wheel: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The wheel built from the sdist of a clean copy of the checkout; the sdist lies beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(export_checkout(folder / "export"), folder / "dist", through_sdist=True)


@pytest.fixture(scope="session")
def unpacked_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pip would install into site-packages."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def core_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with the core dependencies of this package, and no extra.

    Links to the installed packages, so it takes no time. For ``python -S``, which leaves out the
    environment's own folder, and with it the editable install.
    """
    folder = tmp_path_factory.mktemp("core-packages")
    for distribution in _core_distributions().values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            target = Path(str(distribution.locate_file(name)))
            if target.exists() and not (folder / name).exists():
                (folder / name).symlink_to(target)
    return folder


@pytest.fixture(scope="session")
def run_python() -> Callable[..., Any]:
    """Runs Python in a separate process and returns its last output line, parsed as JSON.

    Arguments are Python's own; ``path`` becomes PYTHONPATH, ``cwd`` the current folder.
    """

    def run(arguments: Sequence[str | Path], *, cwd: Path, path: Sequence[Path] = ()) -> Any:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
        result = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PROCESS_TIMEOUT_SECONDS,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run


def _core_distributions() -> dict[str, importlib.metadata.Distribution]:
    """The core dependencies of pyproject.toml and all that they require, by name."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        waiting = [Requirement(line) for line in tomllib.load(file)["project"]["dependencies"]]
    found: dict[str, importlib.metadata.Distribution] = {}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        key = (requirement.name, *sorted(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = importlib.metadata.distribution(requirement.name)
        found[requirement.name] = distribution
        for line in distribution.requires or ():
            further = Requirement(line)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                waiting.append(further)
    return found
