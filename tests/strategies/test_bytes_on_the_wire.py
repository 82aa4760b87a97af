"""The ledger's bytes against the kernel's counters, in a network namespace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import program_decentralized_bytes as program
import pytest

IN_NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def namespace_exit_code():
    try:
        return subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return 1


FAST = ("matching", "complete")
SLOW = ("raise", "drop", "static exponential", "pull", "merge")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    if namespace_exit_code() != 0:
        pytest.skip("this machine does not allow network namespaces")
    folder, runs = tmp_path_factory.mktemp("bytes"), {}

    def of(name):
        names = FAST if name in FAST else SLOW
        if name not in runs:
            runs.update(measured(folder, names))
        return runs[name]["recorded"], runs[name]["wire"]

    return of


def measured(folder, names):
    command = [*IN_NAMESPACE, sys.executable, program.__file__, str(folder), *names]
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


def of_both_suites(*names):
    marks = {name: [pytest.mark.slow] if name in SLOW else [] for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


@pytest.mark.parametrize(
    "name", of_both_suites("matching", "static exponential", "pull", "complete", "merge")
)
def test_recorded_bytes_equal_the_bytes_on_the_wire(found, name):
    recorded, wire = found(name)
    assert recorded > 1e6
    # TCP headers and barriers add a few per cent.
    assert recorded <= wire <= 1.05 * recorded


@pytest.mark.parametrize("on_peer_failure", of_both_suites("raise", "drop"))
def test_a_whole_run_of_a_small_network_is_recorded_with_its_control_traffic(
    found, on_peer_failure
):
    """From the first connection to the end: votes, barriers and the store that agents share."""
    recorded, wire = found(on_peer_failure)
    assert recorded <= wire <= 1.1 * recorded
