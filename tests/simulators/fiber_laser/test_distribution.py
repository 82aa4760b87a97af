"""The simulator as a distribution of its own: ``pip install ./simulators``."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
FORBIDDEN = ("torch", "lightning", "lightning_plugins", "joblib", "h5py")
PROGRAM = f"""
import sys
import fiber_laser
for name in {FORBIDDEN!r}:
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(name + " is there")
from fiber_laser.command import main
from fiber_laser.plots import plot_stage
status = main(["run", "reference_1018", "--output", sys.argv[1]])
print(fiber_laser.__version__, plot_stage.__module__)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source") / "simulators"
    shutil.copytree(
        ROOT / "simulators", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    program = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-c", program, str(built)],
        cwd=source, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return next(built.glob("fiber_laser-*.whl"))


def test_the_wheel_has_the_module_the_designs_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = configparser.ConfigParser()
        (file,) = (name for name in names if name.endswith("entry_points.txt"))
        points.read_string(archive.read(file).decode())
    sources = {
        f"fiber_laser/{path.name}" for path in (ROOT / "simulators/fiber_laser").glob("*.py")
    }
    assert sources <= set(names)
    assert "fiber_laser/designs/reference_1018.yaml" in names
    assert all(name.startswith(("fiber_laser/", "fiber_laser-")) for name in names)
    assert points["console_scripts"]["fiber-laser"] == "fiber_laser.command:main"


def test_it_runs_with_numpy_scipy_yaml_and_matplotlib_only(wheel, tmp_path):
    """Nothing but these, and the packages that matplotlib requires, is importable."""
    pytest.importorskip("matplotlib")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    packages = (
        "numpy", "scipy", "yaml", "matplotlib", "mpl_toolkits", "PIL", "kiwisolver", "cycler",
        "contourpy", "pyparsing", "packaging", "dateutil", "fontTools", "six.py",
    )  # fmt: skip
    installed = Path(np.__file__).parent.parent
    for package in packages:
        for part in (installed / package, installed / f"{package}.libs"):
            if part.exists():
                (site / part.name).symlink_to(part)
    run = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, str(tmp_path / "out")],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "signal_out_w" in run.stdout
    assert run.stdout.splitlines()[-1].endswith("fiber_laser.plots")
    assert (tmp_path / "out" / "main.png").exists()


def test_it_requires_numpy_scipy_yaml_and_for_plots_matplotlib(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(file).decode().splitlines()
    required = {line.split()[1].split(">")[0] for line in lines if line.startswith("Requires-Dist")}
    assert required == {"numpy", "scipy", "PyYAML", "matplotlib"}
