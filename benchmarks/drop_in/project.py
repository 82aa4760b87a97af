"""Runs one project with each plugin, and prints a line of JSON for each cell.

``python benchmarks/drop_in/project.py NAME [PLUGIN ...]``, with the Python of its environment.
"""

import contextlib
import json
import logging
import sys
import time
import warnings

import adapters
from cells import CELLS, STEPS, Project, outcome_of
from projects import PROJECTS


def main(name: str, *plugins: str) -> None:
    """Run a project without a plugin, and then with each."""
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    entry = PROJECTS[name]
    project = Project(getattr(adapters, name), entry.root, dict(entry.patterns))
    with contextlib.redirect_stdout(sys.stderr):
        project.plain = project.run()
        again = project.run()
    if project.plain.steps < STEPS:
        raise SystemExit(f"{name}: {project.plain.steps} steps without a plugin, expected {STEPS}")
    if not project.plain.weights.equal(again.weights):
        raise SystemExit(f"{name}: two runs without a plugin differ")
    for plugin in plugins or CELLS:
        begin = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            outcome = outcome_of(plugin, project, adapters.ADVICE.get(name, {}))
        seconds = round(time.perf_counter() - begin, 1)
        cell = {"project": name, "plugin": plugin, "kind": outcome.kind, "note": outcome.note}
        if outcome.followed:
            cell["followed"] = outcome.followed
        print(json.dumps(cell | {"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
