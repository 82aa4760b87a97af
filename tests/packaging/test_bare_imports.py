"""A test run fails if it imports one of our folders by its bare name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("imported", "exit_code"), [("callbacks.mine", 1), ("simulators", 1), ("my_callbacks", 0)]
)
def test_a_bare_import_fails_the_session_and_is_named(
    tmp_path: Path, checkout: Path, imported: str, exit_code: int
) -> None:
    shutil.copy(checkout / "tests" / "conftest.py", tmp_path)
    module = tmp_path.joinpath(*imported.split(".")).with_suffix(".py")
    module.parent.mkdir(exist_ok=True)
    module.touch()
    (tmp_path / "test_passes.py").write_text(f"def test_passes():\n    import {imported}\n")
    harness = str(checkout / "tests" / "harness")  # conftest.py loads a plugin from it
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": harness},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 passed" in result.stdout, result.stdout + result.stderr
    assert result.returncode == exit_code
    assert ("imported without `lightning_plugins.` in front" in result.stdout) == bool(exit_code)
