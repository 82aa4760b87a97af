"""Writes the front table of docs/results/index.md from the other pages there; --check compares.

usage: results_index.py [--check]

The pages are the output of `lightning-plugins reproduce PAPER --scale cpu`. No
value is entered by hand.
"""

import re
import sys
from collections import Counter
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"
HEADER = "| paper | claim | the paper's figure | ours | verdict | n | cost |"
VERDICTS = ("supported", "inconclusive", "not supported", "not reproduced at this scale")
PART = re.compile(
    r"(?<=<!-- written by scripts/results_index.py -->\n).*(?=<!-- end of the table -->)",
    re.S,
)
BETWEEN_CELLS = re.compile(r"(?<!\\)\|")


def main(arguments: list[str]) -> int:
    """Write the page, or compare with it; return the exit code."""
    page = RESULTS / "index.md"
    before = page.read_text("utf-8")
    after = PART.sub(lambda _: front_table(), before)
    if arguments == ["--check"]:
        return int(before != after)
    page.write_text(after, "utf-8")
    return 0


def pages() -> list[Path]:
    """Return the pages, one per paper."""
    return sorted(path for path in RESULTS.glob("*.md") if path.name != "index.md")


def claims_of(page: Path) -> list[list[str]]:
    """Return the cells of the page's own front table, one list per claim."""
    _, found, rest = page.read_text("utf-8").partition(f"{HEADER}\n")
    if not found:
        raise ValueError(f"{page.name} has no front table: is it the report.md of a run?")
    rows = [line for line in rest.split("\n\n")[0].splitlines() if not line.startswith("| ---")]
    return [[cell.strip() for cell in BETWEEN_CELLS.split(row)[1:-1]] for row in rows]


def front_table() -> str:
    """Return the number of claims per paper and verdict, and a row per claim."""
    of_papers = {page: claims_of(page) for page in pages()}
    counts = [f"| paper | {' | '.join(VERDICTS)} |", "| --- " * (len(VERDICTS) + 1) + "|"]
    for page, claims in of_papers.items():
        # A remark may follow the verdict.
        found = Counter(next(v for v in VERDICTS if cells[4].startswith(v)) for cells in claims)
        numbers = " | ".join(str(found[verdict] or "-") for verdict in VERDICTS)
        counts.append(f"| [{claims[0][0]}]({page.name}) | {numbers} |")
    rows = [f"| {' | '.join(cells)} |" for claims in of_papers.values() for cells in claims]
    table = [HEADER, "| --- " * 7 + "|", *rows]
    return "\n".join(["", *counts, "", *table, "", ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
