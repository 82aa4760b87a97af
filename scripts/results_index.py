"""Writes the picture and the table of docs/results/index.md from the other pages there.

usage: results_index.py [--check]

The pages are the output of `lightning-plugins reproduce PAPER --scale cpu`. No
value is entered by hand. With --check, the files are compared instead.
"""

import html
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PICTURE = RESULTS / "claims.svg"
HEADER = "| paper | claim | the paper's figure | ours | verdict | n | cost |"
COLOURS = {
    "supported": "#1a7f37",
    "refuted at this scale": "#cf222e",
    "undecided": "#8c959f",
}
PART = re.compile(
    r"(?<=<!-- written by scripts/results_index.py -->\n).*(?=<!-- end of the table -->)",
    re.S,
)
BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
INTERVAL = re.compile(r"(-?[\d.e-]+) \[(-?[\d.e-]+), (-?[\d.e-]+)\]")
LABELS, WIDTH, ROW = 430, 380, 15
LOWEST, HIGHEST = -2.0, 4.0


@dataclass(frozen=True)
class MeasuredClaim:
    """A claim of a page; ``effect`` is estimate, from and to, in smallest effects, or empty."""

    paper: str
    name: str
    verdict: str
    is_ours: bool
    is_equivalence: bool
    effect: tuple[float, ...]


def main(arguments: list[str]) -> int:
    """Write picture and page, or compare with them; return the exit code."""
    page = RESULTS / "index.md"
    before = page.read_text("utf-8")
    claims = [claim for path in pages() for claim in measured_claims(path)]
    after, drawn = PART.sub(lambda _: front_table(), before), picture(claims)
    if arguments == ["--check"]:
        return int(before != after or PICTURE.read_text("utf-8") != drawn)
    page.write_text(after, "utf-8")
    PICTURE.write_text(drawn, "utf-8")
    return 0


def pages() -> list[Path]:
    """Return the pages, one per paper."""
    return sorted(path for path in RESULTS.glob("*.md") if path.name != "index.md")


def claims_of(page: Path) -> list[list[str]]:
    """Return the cells of the page's own front tables, one list per claim: the paper's, then ours.

    Raises:
        ValueError: The page has no such table.
    """
    _, *found = page.read_text("utf-8").split(f"{HEADER}\n")
    if not found:
        raise ValueError(f"{page.name} has no front table: is it the report.md of a run?")
    lines = [line for rest in found for line in rest.split("\n\n")[0].splitlines()]
    rows = [line for line in lines if not line.startswith("| ---")]
    return [[cell.strip() for cell in BETWEEN_CELLS.split(row)[1:-1]] for row in rows]


def measured_claims(page: Path) -> list[MeasuredClaim]:
    """Return the claims of a page, with their effects in units of the smallest effect."""
    paper = claims_of(page)[0][0]
    found = []
    for section in re.split("^### ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        name, *lines = html.unescape(re.sub(r"\\(.)", r"\1", section)).splitlines()
        facts = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- "))
        verdict = next(one for one in COLOURS if facts["verdict"].startswith(one))
        effect: tuple[float, ...] = ()
        intervals = INTERVAL.findall(facts["ours"])
        if intervals and "smallest effect" in facts:
            smallest = float(facts["smallest effect"])
            effect = tuple(float(number) / smallest for number in intervals[-1])
        is_ours, is_equivalence = facts["family"].startswith("ours"), "TOST" in facts["rule"]
        found.append(MeasuredClaim(paper, name, verdict, is_ours, is_equivalence, effect))
    return found


def front_table() -> str:
    """Return the number of claims per paper, family and verdict."""
    lines = [
        f"| paper | {' | '.join(COLOURS)} | ours: {' | ours: '.join(COLOURS)} |",
        "| --- " * (2 * len(COLOURS) + 1) + "|",
    ]
    for page in pages():
        claims = measured_claims(page)
        counts = Counter((claim.is_ours, claim.verdict) for claim in claims)
        numbers = [str(counts[ours, one] or "-") for ours in (False, True) for one in COLOURS]
        lines.append(f"| [{claims[0].paper}]({page.name}) | {' | '.join(numbers)} |")
    return "\n".join(["", *lines, "", ""])


def picture(claims: list[MeasuredClaim]) -> str:
    """Draw all claims as SVG, one row each."""
    rows: list[str] = []
    y, paper = 40, ""
    for claim in sorted(claims, key=lambda one: (one.paper, one.is_ours)):
        if claim.paper != paper:
            y += ROW // 2
            paper = claim.paper
            rows.append(_text(8, y + 11, paper, weight="bold"))
            y += ROW
        rows += _row(claim, y)
        y += ROW
    height = y + 34
    lines = []
    for value, label in ((0.0, "no effect"), (1.0, "smallest effect")):
        x = _x(value)
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="36" y2="{y}" stroke="#57606a" stroke-dasharray="3 3"/>'
        )
        lines.append(_text(x, 30, label, anchor="middle"))
    keys = [
        f'<circle cx="{16 + 170 * place}" cy="12" r="4" fill="{colour}"/>'
        + _text(26 + 170 * place, 16, verdict)
        for place, (verdict, colour) in enumerate(COLOURS.items())
    ]
    keys.append(_text(526, 16, "hollow: not claimed in the paper; square: difference / margin"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABELS + WIDTH + 70}" height="{height}" '
        'font-family="sans-serif" font-size="11" role="img" '
        'aria-label="effects of all claims with their intervals">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*keys, *lines, *rows])
        + "\n</svg>\n"
    )


def _row(claim: MeasuredClaim, y: int) -> list[str]:
    shown = claim.name if len(claim.name) <= 72 else f"{claim.name[:70]}…"
    parts = [_text(LABELS - 8, y + 11, shown, anchor="end")]
    if not claim.effect:
        return parts
    colour, middle = COLOURS[claim.verdict], y + 7
    x, start, end = map(_x, claim.effect)
    fill = "white" if claim.is_ours else colour
    parts.append(
        f'<line x1="{start}" x2="{end}" y1="{middle}" y2="{middle}" stroke="{colour}" '
        'stroke-width="2"/>'
    )
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.5"'
    if claim.is_equivalence:
        parts.append(f'<rect x="{x - 3.5}" y="{middle - 3.5}" width="7" height="7" {style}/>')
    else:
        parts.append(f'<circle cx="{x}" cy="{middle}" r="3.5" {style}/>')
    return parts


def _x(value: float) -> float:
    """Return the place of an effect; those outside of the axis are drawn at its end."""
    share = (min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    return round(LABELS + 20 + WIDTH * share, 1)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" fill="#24292f">'
        f"{html.escape(text)}</text>"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
