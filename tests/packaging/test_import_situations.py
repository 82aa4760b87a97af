"""For every way of installing the package, each class exists once, under one name and file.

The wheel imports the public classes of all folders. In the other situations the folders have to be
found in the right place, and the classes that need neither torch nor Lightning are imported.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("callbacks", "datamodules", "litmodels", "simulators")
PROBE = Path(__file__).with_name("probe_imports.py")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe outside the checkout: Python puts a script's own folder on sys.path."""
    return Path(shutil.copy(PROBE, tmp_path_factory.mktemp("probe")))


def assert_clean(report: dict[str, Any], package: Path, folders_in: Path) -> None:
    """Check that all modules come once from the expected folders, also in the spawned process."""
    for where, found in (("here", report), ("in a spawned process", report["spawned"])):
        assert found["package"] == str(package / "__init__.py"), where
        expected = {name: str(folders_in / name / "__init__.py") for name in FOLDERS}
        assert found["folders"] == expected, where
        for name, file in found["classes"].items():
            assert file.startswith(f"{folders_in / name.partition('.')[0]}/"), (where, name, file)
        assert found["strangers"] == [], where
        assert found["files imported twice"] == [], where
        assert found["bare modules"] == [], where
        assert found["importable by mistake"] == [], where


def test_editable_install_imports_from_the_checkout(
    run_python: Callable[..., Any], probe: Path, checkout: Path, tmp_path: Path
) -> None:
    report = run_python([probe, "simulators"], cwd=tmp_path)
    assert_clean(report, checkout / "lightning_plugins", folders_in=checkout)


def test_wheel_elsewhere_imports_from_the_wheel(
    run_python: Callable[..., Any],
    probe: Path,
    unpacked_wheel: Path,
    core_packages: Path,
    tmp_path: Path,
) -> None:
    report = run_python(["-S", probe, *FOLDERS], cwd=tmp_path, path=[unpacked_wheel, core_packages])
    package = unpacked_wheel / "lightning_plugins"
    assert "callbacks.LateSAM" in report["classes"]
    assert_clean(report, package, folders_in=package)


def test_wheel_while_the_current_folder_is_the_checkout_imports_from_the_wheel(
    run_python: Callable[..., Any],
    probe: Path,
    unpacked_wheel: Path,
    core_packages: Path,
    checkout: Path,
) -> None:
    # As with `lightning-plugins`: a program elsewhere, the user's folder last on the path.
    path = [unpacked_wheel, core_packages, checkout]
    report = run_python(["-S", probe, "simulators"], cwd=checkout, path=path)
    package = unpacked_wheel / "lightning_plugins"
    assert_clean(report, package, folders_in=package)


def test_the_checkout_as_current_folder_takes_precedence_over_the_wheel(
    run_python: Callable[..., Any],
    probe: Path,
    unpacked_wheel: Path,
    core_packages: Path,
    checkout: Path,
    tmp_path: Path,
) -> None:
    # As with `python -m`: the current folder is first on the path; nothing may come from the wheel.
    path = [checkout, unpacked_wheel, core_packages]
    report = run_python(["-S", probe, "simulators"], cwd=checkout, path=path)
    assert_clean(report, checkout / "lightning_plugins", folders_in=checkout)


def test_checkout_on_the_path_without_an_install_imports_from_the_checkout(
    run_python: Callable[..., Any],
    probe: Path,
    core_packages: Path,
    checkout: Path,
    tmp_path: Path,
) -> None:
    report = run_python(["-S", probe, "simulators"], cwd=tmp_path, path=[checkout, core_packages])
    assert_clean(report, checkout / "lightning_plugins", folders_in=checkout)


def test_folders_with_the_same_names_in_another_project_stay_importable(
    run_python: Callable[..., Any], checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("OWNER = 'the user'\n")
    program = (
        "import json, callbacks, lightning_plugins.simulators as ours;"
        "print(json.dumps([callbacks.OWNER, ours.__name__]))"
    )
    found = run_python(["-c", program], cwd=tmp_path)
    assert found == ["the user", "lightning_plugins.simulators"]
