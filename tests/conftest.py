"""What holds for every test: threads, no network, and no bare import of our top-level folders."""

import os
import sys

import pytest

# Before torch is imported. One thread a process: the tests' arrays are small, and reductions then
# add in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Of these names exist many in one process: every Lightning project has a folder `callbacks`.
_BARE_NAMES = ("callbacks", "datamodules", "litmodels", "simulators")


@pytest.fixture(autouse=True)
def no_seed_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """``seed_everything`` leaves its seed in the environment, where Lightning takes it up again."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "")
    monkeypatch.delenv("PL_GLOBAL_SEED")
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _bare_modules():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    bare = _bare_modules()
    if bare:
        terminalreporter.section("bare imports", red=True)
        terminalreporter.line(
            f"imported without `lightning_plugins.` in front: {', '.join(bare)}. Each class then "
            "exists twice; import lightning_plugins.callbacks and so on."
        )


def _bare_modules() -> list[str]:
    return sorted(name for name in sys.modules if name.partition(".")[0] in _BARE_NAMES)
