"""What holds for every test: threads, no network, and no bare import of our top-level folders."""

import os
import sys
from typing import Any

import pytest

# Before torch is imported. One thread a process: the tests' arrays are small, and reductions then
# add in one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ("scale_record",)

# Of these names exist many in one process: every Lightning project has a folder `callbacks`.
_BARE_NAMES = ("callbacks", "datamodules", "litmodels", "simulators")
_found_bare: set[str] = set()

# Tests here start several processes that wait for one another with a time limit. They run one after
# the other, so that the machine is not shared by more processes than such a limit is made for.
_PROCESS_TESTS = "tests/strategies/"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests share its fixtures, so they stay in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "processes" if nodeid.startswith(_PROCESS_TESTS) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def no_seed_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """``seed_everything`` leaves its seed in the environment, where Lightning takes it up again."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "")
    monkeypatch.delenv("PL_GLOBAL_SEED")
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    bare = _bare_modules()
    if bare and hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["bare modules"] = bare
    _found_bare.update(bare)
    if _found_bare:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _found_bare.update(getattr(node, "workeroutput", {}).get("bare modules", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _found_bare:
        terminalreporter.section("bare imports", red=True)
        terminalreporter.line(
            f"imported without `lightning_plugins.` in front: {', '.join(sorted(_found_bare))}. "
            "Each class then exists twice; import lightning_plugins.callbacks and so on."
        )


def _bare_modules() -> list[str]:
    return sorted(name for name in sys.modules if name.partition(".")[0] in _BARE_NAMES)
