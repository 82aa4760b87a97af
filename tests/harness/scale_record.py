"""Records on which devices and under which strategies a plugin runs or is refused.

Mark a test that demonstrates it with ``scale(plugin=..., strategy=..., refused="why")``. Its device
is CUDA if the test is also marked ``cuda``. ``{name}`` in an argument is replaced by the test's
parameter of that name. ``pytest --record-scale=FILE`` merges the results of a session into FILE.
"""

import importlib.metadata
import json
import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    what = "merge the results of the tests marked `scale` into this file"
    parser.addoption("--record-scale", metavar="FILE", type=Path, help=what)


def pytest_configure(config):
    file = config.getoption("record_scale")
    # Workers of pytest-xdist only report to the main process.
    if file is not None and not hasattr(config, "workerinput"):
        file = config.invocation_params.dir / file
        config.pluginmanager.register(ScaleRecord(file, config.rootpath))


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("scale"):
            item.user_properties.append(("scale", cell(item, *mark.args, **mark.kwargs)))


def cell(item, *, plugin, strategy, refused=None):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return {
        "plugin": plugin.format(**parameters),
        "strategy": strategy.format(**parameters),
        "device": "cuda" if item.get_closest_marker("cuda") else "cpu",
        "outcome": "run" if refused is None else "refused",
        **({} if refused is None else {"why": refused}),
    }


class ScaleRecord:
    def __init__(self, file, root):
        self.file, self.root = file, root
        self.passed, self.failed = {}, {}

    def pytest_runtest_logreport(self, report):
        cells = [result for name, result in report.user_properties if name == "scale"]
        if report.failed:
            self.failed[report.nodeid] = cells
        elif report.when == "call" and report.passed:
            self.passed[report.nodeid] = cells

    def pytest_sessionfinish(self):
        recorded = json.loads(self.file.read_text("utf-8")) if self.file.exists() else []
        versions = {name: importlib.metadata.version(name) for name in ("torch", "lightning")}
        recorded = existing_tests(recorded, self.root)
        text = json.dumps(merged(recorded, self.passed, self.failed, versions), indent=1)
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        temporary.write_text(f"{text}\n", "utf-8")
        os.replace(temporary, self.file)


def merged(recorded, passed, failed, versions):
    """Return the entries of a file after a session, without cells that have a failed test."""
    now = {}
    for test, cells in passed.items():
        for result in cells:
            entry = now.setdefault(place(result), {**result, **versions, "tests": []})
            if entry["outcome"] != result["outcome"]:
                raise pytest.UsageError(f"{place(result)}: {test} and {entry['tests']} disagree")
            entry["tests"].append(test)
    again = passed.keys() | failed.keys()
    for before in recorded:
        tests = [test for test in before["tests"] if test not in again]
        entry = now.setdefault(place(before), {**before, "tests": []})
        # Tests with other versions or another outcome are not added to these.
        if description(entry) == description(before):
            entry["tests"] += tests
    lost = {place(result) for cells in failed.values() for result in cells}
    entries = [e for where, e in sorted(now.items()) if e["tests"] and where not in lost]
    return [{**entry, "tests": sorted(entry["tests"])} for entry in entries]


def place(entry):
    return entry["plugin"], entry["strategy"], entry["device"]


def description(entry):
    return {name: value for name, value in entry.items() if name != "tests"}


def existing_tests(entries, root):
    """Remove tests that no longer exist under their recorded name."""
    return [{**e, "tests": [t for t in e["tests"] if is_existing_test(t, root)]} for e in entries]


def is_existing_test(test, root):
    file, _, function = test.partition("::")
    path, name = Path(root, file), function.partition("[")[0]
    return path.exists() and f"\ndef {name}(" in path.read_text("utf-8")
