"""A picture of values over optimizer steps."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_plugins.reports.figures import ACCENT, INK, literal


@dataclass(frozen=True)
class Picture:
    """One picture twice: as a PNG file, and as an array ``(height, width, 3)`` of bytes."""

    png: bytes
    pixels: Any


def curve_picture(
    steps: Sequence[int], values: Mapping[str, Sequence[float]], marks: Mapping[str, int]
) -> Picture:
    """Draw each of ``values`` over ``steps`` in a panel of its own.

    Args:
        steps: optimizer steps of the points.
        values: name -> one value a step.
        marks: label -> optimizer step of a vertical line.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(6.4, 1.2 + 1.9 * len(values)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curve) in zip(panels, values.items(), strict=True):
        axes.plot(steps, curve, "o-", color=ACCENT["light"], markersize=4)
        axes.set_title(literal(name), fontsize=10, color=INK["light"])
        for label, step in marks.items():
            axes.axvline(step, color=INK["light"], linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                literal(label),
                (step, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                va="top",
                fontsize=8,
            )
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure, canvas)


def compared_curves_picture(
    steps: Sequence[int], values: Mapping[str, Sequence[float]], ylabel: str
) -> Picture:
    """Draw all of ``values`` over ``steps`` in one panel with a logarithmic axis.

    Args:
        steps: optimizer steps of the points.
        values: name -> one positive value a step; others are left out.
        ylabel: what the values are.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in values.items():
        axes.plot(steps, curve, "o-", markersize=3, label=literal(name))
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(literal(ylabel))
    axes.legend(fontsize=8)
    return rendered(figure, canvas)


def matplotlib_classes() -> tuple[Any, Any]:
    """``Figure`` and its canvas, without pyplot's global state.

    Raises:
        ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'pictures need matplotlib: pip install "lightning-plugins[report]"'
        ) from error
    return Figure, FigureCanvasAgg


def rendered(figure: Any, canvas: Any) -> Picture:
    """The drawn figure."""
    canvas.draw()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(buffer.getvalue(), _opaque(canvas.buffer_rgba()))


def _opaque(rgba: Any) -> Any:
    import numpy as np

    return np.asarray(rgba)[..., :3].copy()
