"""Small files that describe large objects, read in a process whose memory is limited."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="requires Linux")

EXPECTED = {
    "pair of images": "pixels of an image",
    "image by class": "pixels of an image",
    "caption path": "leads out of its folder",
    "table rows": "rows of a table",
    "table cells": "bytes of the cells of a table",
    "table depth": "nested too deeply",
    "json depth": "nested levels",
    "yaml anchors": "values of a YAML text",
    "design anchors": "values of a YAML text",
    "design keys": "unknown",
    "design depth": "nest",
    "design of many keys": "unknown",
    "design infinity": "expected a number",
    "long quantity": "expected a",
    "long white space": "expected a number",
    "npz": "bytes of the arrays",
    "npz header": "header of the array is too long",
    "table columns": "bytes of the cells of a table",
    "table keys": "bytes of the cells of a table",
    "table split": "bytes of the cells of a table",
    "table levels": "nested levels",
    "table levels of a line": "nested levels",
    "table name": "different lengths",
    "packed table": "bytes of the cells of a table",
    "packed checkpoint": "compressed",
    "packed checkpoint file": "compressed",
    "image that is a program": "not a readable image",
    "image that ends": "not a readable image",
    "json quotes": "nested levels",
    "yaml base 60": "a number of 300,001 characters",
    "yaml tag": "not valid YAML",
    "design tag": "not of the type",
    "design base 60": "a number of",
    "design digits": "read",
    "cross-section digits": "read",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    program = Path(__file__).with_name("program_hostile_files.py")
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path_factory.mktemp("hostile"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {line.pop("name"): line for line in lines}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hostile_file_is_refused_quickly_and_its_content_is_not_repeated(name, outcomes):
    outcome = outcomes[name]
    assert EXPECTED[name] in outcome["outcome"]
    assert len(outcome["outcome"]) < 600
    assert "unexpected" not in outcome["outcome"]
    assert outcome["seconds"] < 5


def test_the_files_are_small_and_the_memory_stays_bounded(outcomes):
    assert outcomes["sizes"]["files"] < 50e6
    assert outcomes["sizes"]["peak"] < 2.5e9
