"""What is paid for what: alternatives as points with their standard errors."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from lightning_plugins.reports.curves import Picture, matplotlib_classes, rendered
from lightning_plugins.reports.figures import ACCENT, INK, literal


def frontier_picture(
    rows: Mapping[str, Mapping[str, Sequence[float]]], gained: str, paid: Sequence[str]
) -> Picture:
    """One panel for each of ``paid``, with ``gained`` over it: a point an alternative.

    Bars are standard errors. An alternative without numbers of a measure is left out of its panel.

    Args:
        rows: alternative -> measure -> numbers.
        gained: measure of the vertical axes.
        paid: measures of the horizontal axes, at least one.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(5.2 * len(paid), 4.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(paid), squeeze=False, sharey=True)[0]
    for axes, measure in zip(panels, paid, strict=True):
        for label, row in rows.items():
            across, up = row.get(measure, ()), row.get(gained, ())
            if not (across and up):
                continue
            point = fmean(across), fmean(up)
            axes.errorbar(
                *point,
                xerr=_standard_error(across),
                yerr=_standard_error(up),
                fmt="o",
                color=ACCENT["light"],
                markersize=5,
                linewidth=1,
            )
            axes.annotate(
                literal(label),
                point,
                textcoords="offset points",
                xytext=(6, 5),
                fontsize=8,
                color=INK["light"],
            )
        axes.set_xlabel(literal(measure), fontsize=9, color=INK["light"])
        axes.margins(0.15)
    panels[0].set_ylabel(literal(gained), fontsize=9, color=INK["light"])
    return rendered(figure, canvas)


def _standard_error(numbers: Sequence[float]) -> float:
    return stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
