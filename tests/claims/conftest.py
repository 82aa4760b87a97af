import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def synthetic():
    """The module synthetic_claims, importable by that name also in worker processes."""
    sys.path.insert(0, str(_HERE))
    try:
        import synthetic_claims

        yield synthetic_claims
    finally:
        sys.path.remove(str(_HERE))
        sys.modules.pop("synthetic_claims", None)


@pytest.fixture
def start_python():
    """Start ``python -c code`` with the synthetic module on its path."""
    started = []

    def start(code, **options):
        path = os.pathsep.join([str(_HERE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
