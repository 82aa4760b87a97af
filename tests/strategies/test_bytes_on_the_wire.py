"""The books against the kernel's own counters, in a network namespace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import program_decentralized_bytes as program
import pytest

IN_NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def may_make_namespaces():
    try:
        return subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return 1


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if may_make_namespaces() != 0:
        pytest.skip("this machine does not let us make a network namespace")
    folder = tmp_path_factory.mktemp("bytes")
    command = [*IN_NAMESPACE, sys.executable, program.__file__, str(folder)]
    path = [str(Path(program.__file__).parent), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("name", ["matching", "static exponential", "pull", "complete", "merge"])
def test_what_is_booked_is_what_goes_over_the_wire(found, name):
    booked, wire = found[name]["booked"], found[name]["wire"]
    assert booked > 1e6
    # Headers of TCP and barriers come on top: a few per cent of megabytes.
    assert booked <= wire <= 1.05 * booked
