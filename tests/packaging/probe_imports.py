"""Run by test_import_situations.py in a separate process; prints its findings as JSON.

usage: probe_imports.py FOLDER …    of lightning_plugins, whose public classes are imported
"""

import importlib
import importlib.util
import json
import multiprocessing
import pickle
import sys
from collections import Counter
from typing import Any

_TOP_LEVEL_FOLDERS = ("callbacks", "datamodules", "litmodels", "simulators")
_NEVER_IMPORTABLE = ("tests", "benchmarks", "docs", "examples", "scripts", "torch", "pytest")


def main() -> None:
    classes = _public_classes(sys.argv[1:])
    print(json.dumps(_report(classes) | {"spawned": _in_a_spawned_process(classes)}))


def describe_in_child(pickled: bytes, connection: Any) -> None:
    """Send the :func:`_report` of the spawned process, and the pickled classes."""
    classes = pickle.loads(pickled)  # noqa: S301 - written by this program
    connection.send((_report(classes), pickle.dumps(classes)))


def _public_classes(folders: list[str]) -> dict[str, type]:
    classes = {}
    for folder in folders:
        module = importlib.import_module(f"lightning_plugins.{folder}")
        for name in getattr(module, "__all__", ()):
            if isinstance(getattr(module, name), type):
                classes[f"{folder}.{name}"] = getattr(module, name)
    return classes


def _report(classes: dict[str, type]) -> dict[str, Any]:
    specs = {
        name: importlib.util.find_spec(f"lightning_plugins.{name}") for name in _TOP_LEVEL_FOLDERS
    }
    files = Counter(
        module.__file__
        for name, module in sys.modules.items()
        if getattr(module, "__file__", None) and not name.startswith("__")
        if "lightning_plugins" in name or name.partition(".")[0] in _TOP_LEVEL_FOLDERS
    )
    return {
        "package": importlib.import_module("lightning_plugins").__file__,
        "folders": {name: spec and spec.origin for name, spec in specs.items()},
        "classes": {
            name: sys.modules[cls.__module__].__file__ for name, cls in sorted(classes.items())
        },
        "strangers": sorted(
            name
            for name, cls in classes.items()
            if getattr(importlib.import_module(cls.__module__), cls.__name__) is not cls
        ),
        "files imported twice": sorted(file for file, count in files.items() if count > 1),
        "bare modules": sorted(
            name for name in sys.modules if name.partition(".")[0] in _TOP_LEVEL_FOLDERS
        ),
        "importable by mistake": [
            name
            for name in _NEVER_IMPORTABLE
            if importlib.util.find_spec(f"lightning_plugins.{name}") is not None
        ],
    }


def _in_a_spawned_process(classes: dict[str, type]) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=describe_in_child, args=(pickle.dumps(classes), sender))
    process.start()
    # With our end closed, recv raises EOFError if the child exits, instead of waiting forever.
    sender.close()
    report, pickled = receiver.recv()
    process.join()
    returned = pickle.loads(pickled)  # noqa: S301 - written by this program
    report["strangers"] += [name for name, cls in classes.items() if returned[name] is not cls]
    return report


if __name__ == "__main__":
    main()
