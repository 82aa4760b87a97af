"""Writes the results as a page of the documentation."""

import platform
from collections import Counter
from importlib.metadata import version
from typing import Any

from projects import PROJECTS

_HEAD = """\
# Plugins in other people's projects

`make drop-in` adds each plugin to projects that know nothing of it: packages of the index with
pinned versions, one environment each on top of ours, synthetic data, {steps} optimizer steps on a
CPU. It is not part of `make test`.

- **runs**: it trained all steps, and the result equals a reference: for LateSAM, the gradient of
  two passes made by hand, with all other state as the first pass left it; for GradPower, the plain
  optimizer with powered gradients; for ExactResume, the uninterrupted run, bit for bit; for
  SharpnessMonitor and BlockSharpness, the weights of the plain run, bit for bit.
- **refused**: one line, before or at the first step. The messages are below the table, with the
  result of the same cell after their advice was followed.
- **warns**: a resumed run is not exact, and one line says what is repeated.
- **no resume**: the project replaces the weights that Lightning restores from a checkpoint, also in
  the same run without a plugin.
- **wrong**: anything else. An empty cell was not run.

"""


def page(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the page for the cells of each project."""
    plugins = list(dict.fromkeys(cell["plugin"] for cells in results.values() for cell in cells))
    lines = [_HEAD.format(steps=8), f"| project | covers | {' | '.join(plugins)} |"]
    lines.append("|" + " --- |" * (2 + len(plugins)))
    for name, cells in results.items():
        kinds = {cell["plugin"]: cell["kind"] for cell in cells}
        entry = PROJECTS[name]
        packages = f" ({', '.join(entry.requirements)})" if entry.requirements else ""
        row = [f"`{name}`{packages}", entry.covers, *(kinds.get(p, "") for p in plugins)]
        lines.append(f"| {' | '.join(row)} |")
    counts = Counter(cell["kind"] for cells in results.values() for cell in cells)
    lines += ["", f"{', '.join(f'{n} {kind}' for kind, n in sorted(counts.items()))} cells.", ""]
    refused = [cell for cells in results.values() for cell in cells if cell["kind"] == "refused"]
    followed = sum(cell.get("followed", "").startswith("runs") for cell in refused)
    lines += [
        f"The advice was followed in {followed} of the {len(refused)} refusals, and runs.",
        "",
    ]
    agents = [
        cell for cells in results.values() for cell in cells if cell["plugin"] == "two agents"
    ]
    accepted = [cell for cell in agents if cell["kind"] != "refused"]
    running = sum(cell["kind"] == "runs" for cell in accepted)
    lines += [
        f"Two agents run in {running} of the {len(accepted)} projects that are not refused for a "
        f"documented reason, and {len(agents) - len(accepted)} are refused.",
        "",
    ]
    notes: dict[tuple[str, str], list[str]] = {}
    for name, cells in results.items():
        for cell in cells:
            if cell["kind"] != "runs":
                result = f" (followed: {cell['followed']})" if "followed" in cell else ""
                notes.setdefault((cell["kind"], cell["note"]), []).append(
                    f"{name} with {cell['plugin']}{result}"
                )
    titles = {
        "refused": "Refusals",
        "warns": "Warnings",
        "no resume": "Projects without resume",
        "wrong": "Wrong",
    }
    for kind, title in titles.items():
        if any(key[0] == kind for key in notes):
            lines += [f"## {title}", ""]
        for (of_kind, note), places in notes.items():
            if of_kind == kind:
                lines += [f"- {'; '.join(places)}:", "", f"  > {note}", ""]
    lines += ["## Environment", ""]
    packages = ("torch", "lightning", "pytorch-lightning", "torchmetrics")
    names = ", ".join(f"{name} {version(name)}" for name in packages)
    return "\n".join([*lines, f"Python {platform.python_version()}, {names}, one CPU thread.", ""])
