"""torch and Lightning are loaded only when they are used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAVY = (
    "torch",
    "lightning",
    "pytorch_lightning",
    "numpy",
    "transformers",
    "sklearn",
    "matplotlib",
)


def test_importing_the_package_loads_nothing_heavy(
    run_python: Callable[..., Any], tmp_path: Path
) -> None:
    program = f"""
import json, sys
import lightning_plugins
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    assert run_python(["-c", program], cwd=tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["recipes", "list"],
        ["recipes", "show", "late_sam/digits"],
        ["assets", "list"],
        ["reproduce", "--help"],
        ["--version"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_commands_without_training_do_not_load_torch(
    run_python: Callable[..., Any], tmp_path: Path, arguments: list[str]
) -> None:
    program = f"""
import json, sys
from lightning_plugins.__main__ import main
try:
    code = main({arguments})
except SystemExit as exit:
    code = exit.code
loaded = [name for name in ("torch", "lightning", "pytorch_lightning") if name in sys.modules]
print(json.dumps([code or 0, loaded]))
"""
    code, loaded = run_python(["-c", program], cwd=tmp_path)
    assert (code, loaded) == (0, [])


def test_no_plugin_or_task_module_imports_an_extra_at_module_level(
    run_python: Callable[..., Any], tmp_path: Path
) -> None:
    program = """
import importlib, json, pkgutil, sys
# Lightning and torchmetrics may import extras; only our modules are tested.
import lightning.pytorch, torchmetrics
for extra in ("transformers", "timm", "torchvision", "datasets", "sklearn"):
    for name in [name for name in sys.modules if name.partition(".")[0] == extra]:
        del sys.modules[name]
    sys.modules[extra] = None
failed, imported = [], 0
for folder in ("callbacks", "datamodules", "litmodels"):
    package = importlib.import_module(f"lightning_plugins.{folder}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", failed.append):
        try:
            importlib.import_module(module.name)
            imported += 1
        except ImportError as error:
            failed.append(f"{module.name}: {error}")
print(json.dumps([imported, failed]))
"""
    imported, failed = run_python(["-c", program], cwd=tmp_path)
    assert not failed
    assert imported > 0
