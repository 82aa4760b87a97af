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

_CSS = """
.pair figure { display: inline-block; margin: 0 .6rem .4rem 0; width: 11rem; max-width: 30%; }
.pair img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; border-radius: 4px; }
.pair figcaption, .scale { font-size: .85rem; }
.scale img { width: 11rem; height: .8rem; margin: 0 .4rem; }
.wrong { border-left: 4px solid #cf222e; padding-left: .8rem; }
"""
_MAP = "magma"
_WRONG = "#cf222e"


@dataclass(frozen=True)
class CaptionedPair:
    """Two images with a generated caption.

    Args:
        name: Name of the pair.
        before: First image, an array ``(height, width, 3)`` in [0, 1].
        after: Second image, of the same shape.
        difference: Array ``(rows, columns)`` of the response to the change, 0 or more; None for
            none. All pairs of a page or picture have the same colours, from 0 to the largest value.
        caption: The generated caption.
        references: The human captions; may be empty.
        faults: What is wrong with the caption; such pairs are marked.
        note: A further line, for example a score.
    """

    name: str
    before: Any
    after: Any
    difference: Any
    caption: str
    references: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    note: str = ""

    def images(self) -> dict[str, Any]:
        """Return the images by their labels."""
        found = {"before": self.before, "after": self.after, "difference": self.difference}
        return {label: image for label, image in found.items() if image is not None}


def captions_page(title: str, pairs: Sequence[CaptionedPair]) -> str:
    """Render the pairs as a self-contained HTML page; all text is escaped.

    Raises:
        ImportError: matplotlib is not installed.
    """
    top = _largest(pairs)
    sections = [_section(pair, top) for pair in pairs]
    if any(pair.difference is not None for pair in pairs):
        sections.insert(0, _scale(top))
    return page(title, *sections, css=_CSS)


def contact_sheet(pairs: Sequence[CaptionedPair]) -> Picture:
    """Draw one row per pair: both images, the difference, and the captions.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10.5, 1.75 * len(pairs))
    rows = figure.subplots(len(pairs), 4, squeeze=False, width_ratios=(1, 1, 1, 3.4))
    top = _largest(pairs)
    drawn = None
    for row, pair in zip(rows, pairs, strict=True):
        for axes, (label, image) in zip(row, pair.images().items(), strict=False):
            found = axes.imshow(image, cmap=_MAP, interpolation="nearest", vmin=0, vmax=top)
            drawn = found if label == "difference" else drawn
            axes.set_title(label, fontsize=8, color=INK["light"])
        text = f"{pair.name}\n\ncaption:   {pair.caption or '(empty)'}"
        if pair.references:
            text += f"\nreference: {pair.references[0]}"
        if pair.faults:
            text += f"\nwrong:     {', '.join(pair.faults)}"
        colour = _WRONG if pair.faults else INK["light"]
        row[-1].text(0, 0.5, literal(text), va="center", fontsize=9, wrap=True, color=colour)
        for axes in row:
            axes.set_axis_off()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=rows[:, 2].tolist(), shrink=0.8, fraction=0.1)
        bar.ax.tick_params(labelsize=7)
    return rendered(figure)


def _largest(pairs: Sequence[CaptionedPair]) -> float:
    values = [float(pair.difference.max()) for pair in pairs if pair.difference is not None]
    return max(values, default=0.0) or 1.0


def _scale(top: float) -> Element:
    ramp = [[place / 63 * top for place in range(64)]]
    return Element(
        "p",
        "difference: 0",
        Element("img", src=_png_uri(ramp, top), alt="colours from 0 to the largest value"),
        f"{top:.3g}",
        class_="scale",
    )


def _section(pair: CaptionedPair, top: float) -> Element:
    pictures = (
        Element(
            "figure",
            Element("img", src=_png_uri(image, top), alt=f"{pair.name}, {label}"),
            Element("figcaption", label),
        )
        for label, image in pair.images().items()
    )
    lines = [("caption", pair.caption or "(empty)")]
    lines += [("wrong", ", ".join(pair.faults))] if pair.faults else []
    lines += [("note", pair.note)] if pair.note else []
    lines += [("reference", sentence) for sentence in pair.references]
    parts = (part for term, text in lines for part in (Element("dt", term), Element("dd", text)))
    return Element(
        "section",
        Element("h3", pair.name),
        Element("div", *pictures, class_="pair"),
        Element("dl", *parts),
        class_="claim wrong" if pair.faults else "claim",
    )


def _png_uri(array: Any, top: float) -> str:
    require_matplotlib()
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, array, cmap=_MAP, vmin=0, vmax=top, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
