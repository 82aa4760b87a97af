"""The table of docs/scale.md agrees with the recorded tests."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import scale_record
from lightning.pytorch import Callback
from lightning.pytorch.strategies import Strategy
from scale_record import existing_tests, is_existing_test, merged
from torch.optim import Optimizer

from lightning_plugins import callbacks, optimizers, strategies

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "scale_table.py"
ENTRIES = json.loads((ROOT / "docs" / "scale.json").read_text("utf-8"))
OLD, NEW = {"torch": "2.6", "lightning": "2.6.6"}, {"torch": "2.7", "lightning": "2.6.6"}
RUN = {"plugin": "LateSAM", "strategy": "ddp", "device": "cpu", "outcome": "run"}
REFUSED = {**RUN, "strategy": "fsdp", "outcome": "refused", "why": "parameters are sharded"}


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_the_table_agrees_with_the_file():
    command = [sys.executable, SCRIPT, "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run scripts/scale_table.py"


def test_every_test_named_in_the_file_exists():
    tests = [test for entry in ENTRIES for test in entry["tests"]]
    assert tests
    assert [test for test in tests if not is_existing_test(test, ROOT)] == []
    assert existing_tests([{**RUN, "tests": ["tests/docs/test_scale.py::test_x"]}], ROOT) == [
        {**RUN, "tests": []}
    ]


def test_every_plugin_has_a_row(script):
    public = {
        name
        for package, kind in [
            (callbacks, Callback),
            (optimizers, Optimizer),
            (strategies, Strategy),
        ]
        for name in package.__all__
        if isinstance(getattr(package, name), type) and issubclass(getattr(package, name), kind)
    }
    assert set(script["PLUGINS"]) == public - {
        "Blockwise"
    }  # a part of the optimizers that it names


def test_a_cell_says_run_refused_and_why_or_not_yet_run(script):
    text = script["tables"]([{**RUN}, {**REFUSED}])
    (row,) = (line for line in text.splitlines() if line.startswith("| `LateSAM` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")[1:]]
    assert dict(zip(script["STRATEGIES"], cells, strict=True)) == {
        **dict.fromkeys(script["STRATEGIES"], "not yet run"),
        "ddp": "run",
        "fsdp": "refused: parameters are sharded",
    }


def test_an_unknown_name_raises_an_error(script):
    with pytest.raises(ValueError, match="LateSAN"):
        script["tables"]([{**RUN, "plugin": "LateSAN"}])


def test_a_session_adds_to_the_recorded_tests():
    held = [{**RUN, **NEW, "tests": ["a"]}]
    found = merged(held, {"c": [RUN], "b": [REFUSED, RUN]}, {}, NEW)
    assert found == [{**RUN, **NEW, "tests": ["a", "b", "c"]}, {**REFUSED, **NEW, "tests": ["b"]}]
    assert merged(found, {}, {}, OLD) == found


def test_tests_of_other_versions_are_not_counted():
    assert merged([{**RUN, **OLD, "tests": ["a"]}], {"b": [RUN]}, {}, NEW) == [
        {**RUN, **NEW, "tests": ["b"]}
    ]


def test_a_cell_with_a_failed_test_is_empty():
    held = [{**RUN, **NEW, "tests": ["a", "b"]}, {**REFUSED, **NEW, "tests": ["c"]}]
    assert merged(held, {"b": [RUN]}, {"a": [RUN]}, NEW) == held[1:]


def test_a_test_that_moves_to_another_cell_leaves_the_old_one():
    held = [{**RUN, **NEW, "tests": ["a"]}]
    assert merged(held, {"a": [REFUSED]}, {}, NEW) == [{**REFUSED, **NEW, "tests": ["a"]}]


def test_tests_that_disagree_are_an_error():
    with pytest.raises(pytest.UsageError, match="disagree"):
        merged([], {"a": [RUN], "b": [{**RUN, "outcome": "refused", "why": "x"}]}, {}, NEW)


SUITE = """
import pytest

@pytest.mark.scale(plugin="{name}", strategy="ddp")
@pytest.mark.parametrize("name", ["A", "B"])
def test_it_runs(name):
    pass

@pytest.mark.scale(plugin="A", strategy="fsdp", refused="it is sharded")
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.cuda)])
def test_it_is_refused(device):
    pass

@pytest.mark.scale(plugin="C", strategy="ddp")
def test_it_fails():
    raise AssertionError

@pytest.mark.scale(plugin="D", strategy="ddp")
@pytest.mark.skip
def test_it_is_skipped():
    pass

def test_it_shows_nothing():
    pass
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_only_passed_tests_are_recorded_with_and_without_workers(tmp_path, workers):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  scale\n  cuda\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ("scale_record",)\n')
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [*(sys.executable, "-m", "pytest", "-q", f"-n{workers}"), "--record-scale=scale.json"]
    path = os.pathsep.join([str(Path(scale_record.__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "scale.json").read_text())
    assert [{**entry, "torch": "", "lightning": ""} for entry in found] == [
        {
            **{"plugin": plugin, "strategy": strategy, "device": device, "outcome": outcome},
            **more,
            **{"torch": "", "lightning": "", "tests": [f"test_suite.py::{test}"]},
        }
        for plugin, strategy, device, outcome, more, test in [
            ("A", "ddp", "cpu", "run", {}, "test_it_runs[A]"),
            ("A", "fsdp", "cuda", "refused", {"why": "it is sharded"}, "test_it_is_refused[cuda]"),
            ("B", "ddp", "cpu", "run", {}, "test_it_runs[B]"),
        ]
    ]
    assert not list(tmp_path.glob(".scale.json*"))
