"""Image pairs with their captions, as an HTML page and as a picture."""

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
    """Two images with a generated caption.

    Args:
        name: Name of the pair.
        before: First image, an array ``(height, width, 3)`` in [0, 1].
        after: Second image, of the same shape.
        difference: Array ``(rows, columns)`` of the feature distances; the colours span the range
            of each pair's own values.
        caption: The generated caption.
        references: The human captions; may be empty.
    """

    name: str
    before: Any
    after: Any
    difference: Any
    caption: str
    references: tuple[str, ...] = ()


def captions_page(title: str, pairs: Sequence[CaptionedPair]) -> str:
    """Render the pairs as a self-contained HTML page; all text is escaped.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return page(title, *map(_section, pairs), css=_CSS)


def contact_sheet(pairs: Sequence[CaptionedPair]) -> Picture:
    """Draw one row per pair: both images, the difference, and the captions.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10.5, 1.75 * len(pairs))
    rows = figure.subplots(len(pairs), 4, squeeze=False, width_ratios=(1, 1, 1, 3.4))
    for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        for axes, name in zip(row, _COLUMNS, strict=False):
            axes.imshow(getattr(pair, name), cmap="magma", interpolation="nearest")
            if place == 0:
                axes.set_title(name, fontsize=9, color=INK["light"])
        text = f"{pair.name}\n\ncaption:   {pair.caption or '(empty)'}"
        if pair.references:
            text += f"\nreference: {pair.references[0]}"
        row[-1].text(0, 0.5, literal(text), va="center", fontsize=9, wrap=True, color=INK["light"])
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
