"""A picture of many curves at once: one row a curve, colour for the value."""

import math
from collections.abc import Mapping, Sequence

from lightning_plugins.reports.curves import Picture, matplotlib_classes, rendered
from lightning_plugins.reports.figures import INK, literal

_MOST_LABELS = 24


def heat_map_picture(
    steps: Sequence[int], values: Mapping[str, Mapping[str, Sequence[float]]]
) -> Picture:
    """Draw each of ``values`` as a panel with one row for each of its curves.

    Colours go from 0 to 1, or as far from 0 as the panel's largest value where that is more.

    Args:
        steps: optimizer steps of the points, increasing.
        values: panel -> row -> one value a step.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    rows = max(len(panel) for panel in values.values())
    height = 0.7 + min(0.22 * rows, 5.0)
    figure = Figure(figsize=(7.2, 0.6 + height * len(values)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curves) in zip(panels, values.items(), strict=True):
        finite = [v for curve in curves.values() for v in curve if math.isfinite(v)]
        reach = max([1.0, *map(abs, finite)])
        signed = min([0.0, *finite]) < 0
        mesh = axes.pcolormesh(
            [*steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] + 1],
            range(len(curves) + 1),
            list(curves.values()),
            vmin=-reach if signed else 0.0,
            vmax=reach,
            cmap="RdBu_r" if signed else "viridis",
        )
        axes.invert_yaxis()
        if len(curves) <= _MOST_LABELS:
            axes.set_yticks([row + 0.5 for row in range(len(curves))], curves, fontsize=7)
        axes.set_ylabel("layer.head", fontsize=8)
        axes.set_title(literal(name), fontsize=10, color=INK["light"])
        figure.colorbar(mesh, ax=axes)
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure, canvas)
