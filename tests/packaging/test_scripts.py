"""The shell scripts behind the Makefile."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def with_retries(checkout: Path, command: str) -> subprocess.CompletedProcess[str]:
    program = f"""
set -euo pipefail
source scripts/retries.sh
sleep() {{ echo "slept $1" >&2; }}
{command}
echo went on
"""
    return subprocess.run(["bash", "-c", program], cwd=checkout, capture_output=True, text=True)


def test_a_failing_download_is_tried_three_times_and_then_explained(checkout: Path) -> None:
    result = with_retries(checkout, "with_retries 'fetching x' false")
    assert result.returncode == 2
    assert "went on" not in result.stdout
    pauses = [int(seconds) for seconds in re.findall(r"slept (\d+)", result.stderr)]
    assert len(pauses) == 2
    assert 2 <= pauses[0] < 4 <= pauses[1] < 8
    assert "fetching x failed 3 times" in result.stderr
    assert "Check the network" in result.stderr


def test_a_download_that_succeeds_at_the_second_try_is_not_explained(
    checkout: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "tried"
    command = f"once() {{ [[ -f {mark} ]] || {{ touch {mark}; return 1; }}; }}; with_retries x once"
    result = with_retries(checkout, command)
    assert result.returncode == 0
    assert "went on" in result.stdout
    assert "try 1 failed" in result.stderr
    assert "Check the network" not in result.stderr


@pytest.mark.parametrize("script", ["check", "retries", "set_up", "test_versions", "test_with"])
def test_scripts_are_valid_shell(checkout: Path, script: str) -> None:
    path = checkout / "scripts" / f"{script}.sh"
    result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_continuous_integration_runs_the_same_targets_as_a_person(checkout: Path) -> None:
    lines = (checkout / ".ci" / "run").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make test",
        "make check",
        "make demo",
    ]
