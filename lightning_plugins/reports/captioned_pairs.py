"""Image pairs with their captions, as one HTML page and as one picture."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_plugins.reports.drawing import (
    INK,
    Picture,
    literal,
    new_figure,
    rendered,
    require_matplotlib,
)
from lightning_plugins.reports.html import Element, page

_COLUMNS = ("before", "after", "difference")
_CSS = """
.pair img { width: 11rem; max-width: 30%; aspect-ratio: 1; image-rendering: pixelated;
  margin: 0 .6rem .4rem 0; border-radius: 4px; }
"""


@dataclass(frozen=True)
class CaptionedPair:
    """What a captioner says about two images.

    Args:
        name: of the pair.
        before: array ``(height, width, 3)`` in [0, 1].
        after: likewise.
        difference: array ``(rows, columns)``, where the network saw a difference; each picture is
            drawn from its own smallest to its own largest value.
        caption: what the captioner said.
        references: what people said; empty where nobody did.
    """

    name: str
    before: Any
    after: Any
    difference: Any
    caption: str
    references: tuple[str, ...] = ()


def captions_page(title: str, pairs: Sequence[CaptionedPair]) -> str:
    """The pairs as one self-contained HTML page, all text escaped.

    Raises:
        ImportError: if matplotlib is missing.
    """
    return page(title, *map(_section, pairs), css=_CSS)


def contact_sheet(pairs: Sequence[CaptionedPair]) -> Picture:
    """The pairs one below the other: both images, the difference, and the captions.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure = new_figure(10.5, 1.75 * len(pairs))
    rows = figure.subplots(len(pairs), 4, squeeze=False, width_ratios=(1, 1, 1, 3.4))
    for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        for axes, name in zip(row, _COLUMNS, strict=False):
            axes.imshow(getattr(pair, name), cmap="magma", interpolation="nearest")
            if place == 0:
                axes.set_title(name, fontsize=9, color=INK["light"])
        said = f"{pair.name}\n\ncaption:   {pair.caption or '(empty)'}"
        if pair.references:
            said += f"\nreference: {pair.references[0]}"
        row[-1].text(0, 0.5, literal(said), va="center", fontsize=9, wrap=True, color=INK["light"])
        for axes in row:
            axes.set_axis_off()
    return rendered(figure)


def _section(pair: CaptionedPair) -> Element:
    pictures = (
        Element("img", src=_png_uri(getattr(pair, name)), alt=f"{pair.name}, {name}", title=name)
        for name in _COLUMNS
    )
    references = (
        part
        for sentence in pair.references
        for part in (Element("dt", "reference"), Element("dd", sentence))
    )
    return Element(
        "section",
        Element("h3", pair.name),
        Element("div", *pictures, class_="pair"),
        Element(
            "dl", Element("dt", "caption"), Element("dd", pair.caption or "(empty)"), *references
        ),
        class_="claim",
    )


def _png_uri(array: Any) -> str:
    require_matplotlib()
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, array, cmap="magma", format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
