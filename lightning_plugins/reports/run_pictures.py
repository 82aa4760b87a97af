"""Pictures of a training run: curves, phases, heat maps, and domain maps."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_plugins.reports.drawing import ACCENT, INK, Picture, literal, new_figure, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PHASE_COLOURS = ("#9aa5b1", "#d8dee4", "#e0b04a", "#4cc26b")
_MAX_ROW_LABELS = 24


def curve_picture(
    steps: Sequence[int], values: Mapping[str, Sequence[float]], marks: Mapping[str, int]
) -> Picture:
    """Draw each of ``values`` over ``steps`` in a separate panel.

    Args:
        steps: Optimizer steps of the points.
        values: Name -> one value per step.
        marks: Label -> optimizer step of a vertical line.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(6.4, 1.2 + 1.9 * len(values))
    panels = _stacked_panels(figure, len(values))
    for axes, (name, curve) in zip(panels, values.items(), strict=True):
        axes.plot(steps, curve, "o-", color=ACCENT["light"], markersize=4)
        axes.set_title(literal(name), fontsize=10, color=INK["light"])
        for label, step in marks.items():
            axes.axvline(step, color=INK["light"], linewidth=1, linestyle=(0, (4, 3)))
            _annotate_top(axes, literal(label), step, (3, -3), "left")
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure)


def compared_curves_picture(
    steps: Sequence[int], values: Mapping[str, Sequence[float]], ylabel: str
) -> Picture:
    """Draw all of ``values`` over ``steps`` in one panel with a logarithmic axis.

    Args:
        steps: Optimizer steps of the points.
        values: Name -> one value per step. Values that are not positive are omitted.
        ylabel: Label of the vertical axis.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    for name, curve in values.items():
        axes.plot(steps, curve, "o-", markersize=3, label=literal(name))
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(literal(ylabel))
    axes.legend(fontsize=8)
    return rendered(figure)


def phase_picture(
    steps: Sequence[float],
    values: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]],
    bands: Mapping[str, tuple[float, float]],
) -> Picture:
    """Draw each of ``values`` in a separate panel, over shaded phases.

    Args:
        steps: Optimizer steps of the points.
        values: Name -> one value per step.
        reference: Name -> one predicted value per step, for some of the names.
        bands: Phase -> its first and last step.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(7.2, 0.8 + 2.0 * len(values))
    panels = _stacked_panels(figure, len(values))
    for axes, (name, curve) in zip(panels, values.items(), strict=True):
        for shade, (begin, end) in zip(_PHASE_COLOURS, bands.values(), strict=False):
            axes.axvspan(begin, end, color=shade, alpha=0.25, linewidth=0)
        axes.plot(steps, curve, color=ACCENT["light"], linewidth=1.5, label="run")
        if name in reference:
            axes.plot(
                steps, reference[name], color=INK["light"], linewidth=1.2, ls="--", label="theory"
            )
            axes.legend(fontsize=8)
        axes.set_title(literal(name), fontsize=10, color=INK["light"])
        if "loss" in name:
            axes.set_yscale("log", nonpositive="mask")
    for label, (begin, end) in bands.items():
        _annotate_top(panels[0], label, (begin + end) / 2, (0, -3), "center")
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure)


def heat_map_picture(
    steps: Sequence[int], values: Mapping[str, Mapping[str, Sequence[float]]]
) -> Picture:
    """Draw each of ``values`` as a panel with one row per curve.

    The colour scale is [0, 1], extended to the panel's largest absolute value if that exceeds 1. It
    is symmetric about 0 if there are negative values.

    Args:
        steps: Optimizer steps of the points, increasing.
        values: Panel -> row -> one value per step.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = max(len(panel) for panel in values.values())
    height = 0.7 + min(0.22 * rows, 5.0)
    figure = new_figure(7.2, 0.6 + height * len(values))
    panels = _stacked_panels(figure, len(values))
    for axes, (name, curves) in zip(panels, values.items(), strict=True):
        finite = [v for curve in curves.values() for v in curve if math.isfinite(v)]
        largest = max([1.0, *map(abs, finite)])
        is_signed = min([0.0, *finite]) < 0
        mesh = axes.pcolormesh(
            [*steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1],
            range(len(curves) + 1),
            list(curves.values()),
            vmin=-largest if is_signed else 0.0,
            vmax=largest,
            cmap="RdBu_r" if is_signed else "viridis",
        )
        axes.invert_yaxis()
        if len(curves) <= _MAX_ROW_LABELS:
            labels = [literal(label) for label in curves]
            axes.set_yticks([row + 0.5 for row in range(len(curves))], labels, fontsize=7)
        axes.set_ylabel("layer.head", fontsize=8)
        axes.set_title(literal(name), fontsize=10, color=INK["light"])
        figure.colorbar(mesh, ax=axes)
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure)


def domain_map_picture(points: Any, pieces: Any, title: str) -> Picture:
    """Draw points in the plane, each in the colour of its piece.

    Args:
        points: Array ``(points, 2)``.
        pieces: Array of integers from 0, ``(points,)``. Colours repeat after 20 pieces.
        title: Title above the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(5.2, 5.2)
    axes = figure.subplots()
    colours = (2 * pieces + pieces // 10) % 20  # tab20 has pairs of dark and light; dark ones first
    axes.scatter(
        points[:, 0], points[:, 1], c=colours, cmap="tab20", vmin=0, vmax=19, s=6, linewidths=0
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(literal(title), fontsize=10)
    return rendered(figure)


def _stacked_panels(figure: "Figure", count: int) -> Any:
    return figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]


def _annotate_top(
    axes: "Axes", text: str, x: float, offset: tuple[float, float], alignment: str
) -> None:
    """Write text at ``x`` below the top of the panel, shifted by ``offset`` points."""
    axes.annotate(
        literal(text),
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=offset,
        textcoords="offset points",
        ha=alignment,
        va="top",
        fontsize=8,
    )
