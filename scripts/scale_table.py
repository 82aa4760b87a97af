"""Writes the tables of docs/scale.md from docs/scale.json; with --check, only compares them.

usage: scale_table.py [--check]
"""

import json
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
DEVICES = {"cpu": "On CPUs, gloo", "cuda": "On CUDA devices, NCCL"}
STRATEGIES = {
    "one device": "one device",
    "ddp": "`ddp`",
    "fsdp2": "FSDP2",
    "tp": "tensor parallel",
    "fsdp": "FSDP",
    "deepspeed": "DeepSpeed",
    "decentralized": "`decentralized`",
    "decentralized_simulated": "`decentralized_simulated`",
}
PLUGINS = (
    "LateSAM",
    "LateAdversarialTraining",
    "AdversarialEvaluation",
    "SharpnessMonitor",
    "HeadScores",
    "StagedTraining",
    "ExactResume",
    "BlockSharpness",
    "ParameterNames",
    "PhaseDetector",
    "RoutingStats",
    "RouterBiasBalancing",
    "PretrainingMonitor",
    "AdversarialTextEvaluation",
    "AdamWPower",
    "SGDPower",
    "MuonPower",
    "GradPower",
    "BlockwiseAdamW",
    "BlockwiseLion",
    "BlockwiseAdamMini",
    "AdamMini",
    "MuonAdamW",
    "Lion",
    "CommunicationSchedule",
    "MergedEvaluation",
    "DecentralizedSummary",
    "DecentralizedStrategy",
    "SimulatedDecentralizedStrategy",
)
# A strategy cannot be combined with another strategy.
ITSELF = {
    "DecentralizedStrategy": "decentralized",
    "SimulatedDecentralizedStrategy": "decentralized_simulated",
}
PART = re.compile(
    r"(?<=<!-- written by scripts/scale_table.py -->\n).*(?=<!-- end of what it wrote -->)", re.S
)


def main(arguments: list[str]) -> int:
    """Write the page, or compare with it; return the exit code."""
    page = DOCS / "scale.md"
    before = page.read_text("utf-8")
    entries = json.loads((DOCS / "scale.json").read_text("utf-8"))
    after = PART.sub(lambda _: tables(entries), before)
    if arguments == ["--check"]:
        return int(before != after)
    page.write_text(after, "utf-8")
    return 0


def tables(entries: list[dict[str, str]]) -> str:
    """Return one table per device; plugins with equal cells share a row."""
    cells = {(e["plugin"], e["strategy"], e["device"]): e for e in entries}
    known = {(p, s, d) for p in PLUGINS for s in STRATEGIES for d in DEVICES}
    if unknown := cells.keys() - known:
        raise ValueError(f"of {unknown} scripts/scale_table.py knows no row or no column")
    return "".join(f"\n{table(cells, device)}" for device in DEVICES)


def table(cells: dict[tuple[str, str, str], dict[str, str]], device: str) -> str:
    """Return heading and rows of one device."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for plugin in PLUGINS:
        own = tuple(said(cells.get((plugin, s, device)), plugin, s) for s in STRATEGIES)
        rows.setdefault(own, []).append(f"`{plugin}`")
    lines = [
        ("plugin", *STRATEGIES.values()),
        ("---",) * (len(STRATEGIES) + 1),
        *((", ".join(plugins), *own) for own, plugins in rows.items()),
    ]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {DEVICES[device]}\n\n{text}\n"


def said(entry: dict[str, str] | None, plugin: str, strategy: str) -> str:
    """Return the text of a cell."""
    if ITSELF.get(plugin, strategy) != strategy:
        return "-"
    if entry is None:
        return "not yet run"
    return f"refused: {entry['why']}" if entry["outcome"] == "refused" else "run"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
