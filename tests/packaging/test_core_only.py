"""Every module imports, and LateSAM trains, with the core dependencies alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("program_core_only.py")


def test_every_module_imports_and_late_sam_trains_with_the_core_dependencies_alone(
    run_python: Callable[..., Any], unpacked_wheel: Path, core_packages: Path, tmp_path: Path
) -> None:
    program = shutil.copy(PROGRAM, tmp_path)
    found = run_python(["-S", program], cwd=tmp_path, path=[unpacked_wheel, core_packages])
    assert found["extras"] == [], "the environment is not core alone"
    assert found["package"].startswith(str(unpacked_wheel))
    for name in ("callbacks.late_sam", "datamodules.digits", "litmodels.image.classifier"):
        assert f"lightning_plugins.{name}" in found["imported"]
    training = found["training"]
    assert training["steps"] == 8
    assert training["passes"] == 16, "SAM takes two passes a step"
    assert training["loss after"] < training["loss before"]
