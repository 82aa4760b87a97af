"""Draws docs/pictures/*.svg from the tables of docs/results; --check compares.

usage: pictures.py [--check]

The figures are those of the committed results; none is entered by hand. A bar or dot is a mean over
seeds, its line one standard deviation to each side.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from html import escape

from results_index import BETWEEN_CELLS, COLOURS, RESULTS, measured_claims, pages

PICTURES = RESULTS.parent / "pictures"
PLAIN, MARKED = "#64748b", "#c2410c"
LABEL, BAR, VALUE, ROW = 190, 260, 70, 24  # widths and height in pixels


@dataclass(frozen=True)
class Bars:
    """A bar for each arm: a column of the table that starts with the arm's row.

    ``arms`` maps the arm of the table to its label; labels that end in ``*`` are drawn in colour.
    """

    page: str
    table: str
    column: str
    axis: str
    arms: dict[str, str]
    from_zero: bool = True  # otherwise dots on an axis that starts below the smallest value


BARS = {
    "flatness": Bars(
        "late_sam",
        "switch",
        r"λ\_max",
        "largest Hessian eigenvalue after training (lower is flatter)",
        {
            "SGD": "SGD",
            "SWA": "SGD, averaged weights",
            "late SAM 10 %": "SAM in the last 10 % *",
            "late SAM 12.5 %": "SAM in the last 12.5 % *",
            "late SAM 20 %": "SAM in the last 20 % *",
            "late SAM": "SAM in the last 30 % *",
            "SAM": "SAM in the whole run *",
        },
    ),
    "merge": Bars(
        "decentralized",
        "schedules",
        "agents' models %",
        "accuracy of the agents' models in %",
        {
            "no communication": "no communication",
            "gossip": "gossip",
            "gossip, merged": "gossip, one merge *",
            "local SGD, equal bytes": "local SGD, equal bytes",
            "server": "server",
        },
    ),
    "block_rates": Bars(
        "blockwise_lr",
        "terminal loss",
        "test loss",
        "test loss, each arm with its best rate (lower is better)",
        {
            "AdamW, 0.08M": "AdamW",
            "Blockwise, 0.08M": "Blockwise AdamW *",
            "embedding and head 10x, 0.08M": "10x for embedding, head",
            "Muon, 0.08M": "Muon",
        },
        from_zero=False,
    ),
    "powers": Bars(
        "grad_power",
        "terminal loss",
        "test loss",
        "test loss, each arm with its best rate (lower is better)",
        {
            "AdamW, 0.08M": "AdamW",
            "AdamPower, 0.08M": "AdamWPower *",
            "AdamW, 0.08M WSD": "AdamW, WSD schedule",
            "AdamPower, 0.08M WSD": "AdamWPower, WSD *",
        },
        from_zero=False,
    ),
    "paths": Bars(
        "influence_paths",
        "followed",
        "interest +nats",
        "interest in the target that a path adds, in nats",
        {
            "next item": "next item",
            "random": "random",
            "irn": "IRN *",
            "walk": "co-occurrence path *",
            "rec2inf": "Rec2Inf *",
            "ipg": "IPG *",
            "text of 200": "texts among 200 *",
        },
    ),
    "transition": Bars(
        "induction_heads",
        "second layer",
        "step",
        "step at which half of the mechanism is learned",
        {
            "4-gram": "4-gram",
            "induction head": "induction head *",
            "twice the length": "  with twice the length *",
            "σ = 0.0001": "  initialized at 0.0001 *",
        },
    ),
    "captions": Bars(
        "change_captioning",
        "tiles",
        r"S\*\_m (stem METEOR)",
        "S*m of the captions",
        {
            "no module": "no module",
            "each image alone": "each image alone",
            "difference module": "difference module *",
            "says that nothing changed": "always “no change”",
        },
    ),
}


def main(arguments: list[str]) -> int:
    """Write the pictures, or compare with them; return the exit code."""
    drawn = {name: bars_picture(bars) for name, bars in BARS.items()}
    drawn["claims"] = claims_picture()
    different = 0
    for name, picture in drawn.items():
        target = PICTURES / f"{name}.svg"
        if arguments != ["--check"]:
            target.write_text(picture, "utf-8")
        elif not target.exists() or target.read_text("utf-8") != picture:
            print(f"{target.name} differs from docs/results; run: python scripts/pictures.py")
            different = 1
    return different


def cells_of(bars: Bars) -> list[str]:
    """Return the cell of each arm, such as ``1.638 ± 0.083``."""
    text = (RESULTS / f"{bars.page}.md").read_text("utf-8").replace(r"\*\_", "*_")
    _, found, rest = text.partition(f"\n{bars.table}\n\n| arm |")
    if not found:
        raise ValueError(f"{bars.page}.md has no table {bars.table!r}")
    lines = f"| arm |{rest}".split("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in BETWEEN_CELLS.split(line)] for line in lines]
    place = header.index(bars.column.replace(r"\*\_", "*_"))
    by_arm = {row[1]: row[place] for row in rows}
    return [by_arm[arm] for arm in bars.arms]


def bars_picture(bars: Bars) -> str:
    """Return the SVG of the bars."""
    cells = cells_of(bars)
    numbers = [[float(part) for part in cell.split(" ± ")] for cell in cells]
    lowest, highest = min(m - sd for m, sd in numbers), max(m + sd for m, sd in numbers)
    low = min(0.0, lowest) if bars.from_zero else lowest - 0.1 * (highest - lowest)
    scale = BAR / (highest - low)
    zero = LABEL - low * scale
    axis = zero if bars.from_zero else LABEL
    parts = []
    for place, (label, cell, (mean, sd)) in enumerate(
        zip(bars.arms.values(), cells, numbers, strict=True)
    ):
        top, middle = place * ROW + 4, place * ROW + ROW / 2
        colour = MARKED if label.endswith("*") else PLAIN
        at = zero + mean * scale
        start, end = sorted((zero, at))
        line = (zero + (mean - sd) * scale, zero + (mean + sd) * scale)
        indent = 12 if label.startswith(" ") else 0
        parts += [
            _text(indent, middle, label.rstrip("* ").strip()),
            _box(start, top, end - start, ROW - 8, colour, 0.35)
            if bars.from_zero
            else f'<circle cx="{at:.1f}" cy="{middle:.1f}" r="4" fill="{colour}"/>',
            f'<path d="M{line[0]:.1f} {middle:.1f}H{line[1]:.1f}" stroke="{colour}"/>',
            _text(max(end, line[1]) + 6, middle, cell.split(" ± ")[0].replace("-", "−")),
        ]
    height = len(cells) * ROW
    parts += [
        f'<path d="M{axis:.1f} 0V{height}" stroke="{PLAIN}"/>',
        _text(0, height + 14, bars.axis, "#334155"),
    ]
    return _svg(LABEL + BAR + VALUE, height + 26, parts)


def claims_picture() -> str:
    """Return the SVG with the number of each paper's own claims per verdict."""
    parts, place = [], 0
    for (verdict, colour), left in zip(COLOURS.items(), (0, 100, 260), strict=True):
        parts += [_box(left, 6, 12, 12, colour), _text(left + 17, 12, verdict)]
    counts = []
    for page in pages():
        claims = measured_claims(page)
        found = Counter(claim.verdict for claim in claims if not claim.is_ours)
        counts.append((claims[0].paper, [found[verdict] for verdict in COLOURS]))
    unit = (BAR + VALUE) / max(sum(numbers) for _, numbers in counts)
    for place, (paper, numbers) in enumerate(counts, start=1):
        left = float(LABEL)
        parts.append(_text(0, place * ROW + ROW / 2, paper.replace("-", " ")))
        for number, colour in zip(numbers, COLOURS.values(), strict=True):
            if number:
                parts.append(_box(left, place * ROW + 4, number * unit - 1, ROW - 8, colour))
                parts.append(_text(left + 5, place * ROW + ROW / 2, str(number), "#fff"))
                left += number * unit
    return _svg(LABEL + BAR + VALUE, (place + 1) * ROW, parts)


def _text(x: float, y: float, words: str, colour: str = "#0f172a") -> str:
    return f'<text x="{x:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} fill="{colour}" fill-opacity="{opacity}"/>'


def _svg(width: float, height: float, parts: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {width + 16} {height + 16}" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f'<rect x="-8" y="-8" width="{width + 16}" height="{height + 16}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
