"""Writes down under which strategy, and on which device, a plugin was shown to run or is refused.

A test that shows it is marked ``scale(plugin=..., strategy=..., refused="why")``; its device is
CUDA where it is marked ``cuda`` too. ``{name}`` in an argument is the parameter of that name.
``pytest --record-scale=FILE`` merges what a session showed into the file.
"""

import importlib.metadata
import json
import os
from pathlib import Path

import pytest


def pytest_addoption(parser):
    what = "merge what the tests marked `scale` show into this file"
    parser.addoption("--record-scale", metavar="FILE", type=Path, help=what)


def pytest_configure(config):
    file = config.getoption("record_scale")
    # The workers of pytest-xdist only report.
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
        cells = [shown for name, shown in report.user_properties if name == "scale"]
        if report.failed:
            self.failed[report.nodeid] = cells
        elif report.when == "call" and report.passed:
            self.passed[report.nodeid] = cells

    def pytest_sessionfinish(self):
        held = json.loads(self.file.read_text("utf-8")) if self.file.exists() else []
        versions = {name: importlib.metadata.version(name) for name in ("torch", "lightning")}
        held = still_there(held, self.root)
        text = json.dumps(merged(held, self.passed, self.failed, versions), indent=1)
        temporary = self.file.with_name(f".{self.file.name}.tmp")
        temporary.write_text(f"{text}\n", "utf-8")
        os.replace(temporary, self.file)


def merged(held, passed, failed, versions):
    """The entries of a file after a session; a cell of which a test failed has none."""
    now = {}
    for test, cells in passed.items():
        for shown in cells:
            entry = now.setdefault(place(shown), {**shown, **versions, "tests": []})
            if entry["outcome"] != shown["outcome"]:
                raise pytest.UsageError(f"{place(shown)}: {test} and {entry['tests']} disagree")
            entry["tests"].append(test)
    again = passed.keys() | failed.keys()
    for before in held:
        tests = [test for test in before["tests"] if test not in again]
        entry = now.setdefault(place(before), {**before, "tests": []})
        # Tests of another version of torch, or that showed something else, are not added to these.
        if description(entry) == description(before):
            entry["tests"] += tests
    lost = {place(shown) for cells in failed.values() for shown in cells}
    entries = [e for where, e in sorted(now.items()) if e["tests"] and where not in lost]
    return [{**entry, "tests": sorted(entry["tests"])} for entry in entries]


def place(entry):
    return entry["plugin"], entry["strategy"], entry["device"]


def description(entry):
    return {name: value for name, value in entry.items() if name != "tests"}


def still_there(entries, root):
    """Without tests that were taken away or have another name now."""
    return [{**e, "tests": [t for t in e["tests"] if is_there(t, root)]} for e in entries]


def is_there(test, root):
    file, _, function = test.partition("::")
    path, name = Path(root, file), function.partition("[")[0]
    return path.exists() and f"\ndef {name}(" in path.read_text("utf-8")
