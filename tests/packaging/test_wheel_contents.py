"""The wheel contains every source file of the tree, and nothing else."""

import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import pytest

MAPPED_FOLDERS = ("callbacks", "datamodules", "litmodels", "simulators")


def sources_of(paths: Iterable[Path]) -> set[str]:
    """Return the expected names of the tree's files in the wheel."""
    names = set()
    for path in map(PurePosixPath, paths):
        is_source = path.suffix in (".py", ".yaml", ".cpp") or path.name == "py.typed"
        if is_source and path.parts[0] == "lightning_plugins":
            names.add(str(path))
        elif is_source and path.parts[0] in MAPPED_FOLDERS:
            names.add(f"lightning_plugins/{path}")
    return names


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_contains_the_tree_and_nothing_else(
    wheel: Path, project_files: list[Path]
) -> None:
    expected, found = sources_of(project_files), files_in(wheel)
    assert {"lightning_plugins/py.typed", "lightning_plugins/callbacks/late_sam.py"} <= expected
    missing = sorted(expected - found)
    assert not missing, "not in the wheel: name their folder under `packages` in pyproject.toml"
    assert not sorted(found - expected)


def test_the_sdist_contains_the_tree_with_tests_documents_and_changelog(
    wheel: Path, project_files: list[Path]
) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    unpublished = (".git", ".github", ".gitignore", ".gitattributes")
    expected = {str(path) for path in project_files if path.parts[0] not in unpublished}
    assert {"CHANGELOG.md", "tests/conftest.py", "docs/index.md"} <= expected
    assert not sorted(expected - found), "not in the sdist: name them in MANIFEST.in"


@pytest.mark.slow  # a second build; the test of the contents fails on the same fault
def test_a_package_folder_missing_from_pyproject_is_detected(
    export_checkout: Callable[[Path], Path],
    build_wheel: Callable[..., Path],
    project_files: list[Path],
    tmp_path: Path,
) -> None:
    forgotten = [Path("lightning_plugins/forgotten/__init__.py"), Path("litmodels/new/model.py")]
    export = export_checkout(tmp_path / "export")
    for path in forgotten:
        (export / path).parent.mkdir()
        (export / path).touch()
    found = files_in(build_wheel(export, tmp_path / "dist"))
    assert sources_of([*project_files, *forgotten]) - found >= sources_of(forgotten)


def test_the_wheel_contains_the_licence_and_two_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert commands.split() == [
        "[console_scripts]",
        "fiber-laser",
        "=",
        "lightning_plugins.simulators.fiber_laser.command:main",
        "lightning-plugins",
        "=",
        "lightning_plugins.__main__:main",
    ]
