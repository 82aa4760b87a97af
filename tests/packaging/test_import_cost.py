"""torch and Lightning are loaded only when they are used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


COMMANDS = (
    ["recipes", "list"],
    ["recipes", "show", "late_sam/digits"],
    ["assets", "list"],
    ["reproduce", "--help"],
    ["--version"],
    ["--help"],
)


def test_commands_without_training_do_not_load_torch(
    run_python: Callable[..., Any], tmp_path: Path
) -> None:
    program = f"""
import json, sys
from lightning_plugins.__main__ import main
found = []
for arguments in {COMMANDS}:
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = exit.code
    loaded = [name for name in ("torch", "lightning", "pytorch_lightning") if name in sys.modules]
    found.append([arguments, code or 0, loaded])
print(json.dumps(found))
"""
    assert run_python(["-c", program], cwd=tmp_path) == [[one, 0, []] for one in COMMANDS]
