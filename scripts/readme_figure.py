"""Draws the picture of README.md from the committed rows of the late-SAM experiment.

usage: python scripts/readme_figure.py [docs/flatness.svg]
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs" / "results" / "late_sam.csv"
ARMS = {
    "SGD": "SGD",
    "SWA": "SGD, averaged weights",
    "late SAM 10 %": "SAM in the last 10 %",
    "late SAM 12.5 %": "SAM in the last 12.5 %",
    "late SAM 20 %": "SAM in the last 20 %",
    "late SAM": "SAM in the last 30 %",
    "SAM": "SAM in the whole run",
}


def main() -> None:
    """Draw one row per arm: each seed as a dot, the mean as a bar."""
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with ROWS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["experiment"] == "switch" and row["arm"] in found:
                found[row["arm"]].append(float(row["lambda_max"]))
    plt.rcParams.update({"svg.hashsalt": "readme", "font.size": 11, "svg.fonttype": "path"})
    figure, axes = plt.subplots(figsize=(7.2, 3.0), layout="constrained")
    for place, values in enumerate(found.values()):
        mean = statistics.fmean(values)
        colour = "#c2410c" if place > 1 else "#475569"
        axes.barh(place, mean, height=0.6, color=colour, alpha=0.3)
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=4)
        axes.text(max(values) + 0.03, place, f"{mean:.2f}", va="center", fontsize=10)
    axes.set_yticks(range(len(ARMS)), ARMS.values())
    axes.invert_yaxis()
    axes.set_xlim(0, 2)
    axes.set_xlabel(r"largest Hessian eigenvalue after training (lower is flatter)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.patch.set_facecolor("white")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "flatness.svg"
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
