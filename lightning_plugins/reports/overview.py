"""The figure at the head of a paper: every arm of an experiment in one metric."""

import math

from lightning_plugins.reports.drawing import (
    ACCENT,
    FAINT,
    INK,
    dress,
    encoded,
    literal,
    new_figure,
)
from lightning_plugins.reports.report_data import OverviewEvidence


def overview_figure(overview: OverviewEvidence, theme: str = "light", kind: str = "svg") -> bytes:
    """One row an arm: its seeds' values, their mean, and the interval of the mean.

    Args:
        overview: with at least one arm.
        theme: ``light`` or ``dark``; the background is transparent.
        kind: ``svg`` or ``png``.

    Returns:
        The encoded image.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure = new_figure(8.4, 1.0 + 0.32 * len(overview.arms))
    axes = figure.subplots()
    for place, arm in enumerate(overview.arms):
        axes.plot(arm.values, [place] * len(arm.values), "o", color=FAINT[theme], markersize=4)
        if all(map(math.isfinite, arm.interval)):
            axes.plot(arm.interval, [place, place], color=ACCENT[theme], linewidth=2.5)
        axes.plot([arm.mean], [place], "D", color=ACCENT[theme], markersize=6)
    axes.set_yticks(range(len(overview.arms)), [literal(arm.arm) for arm in overview.arms])
    axes.set_ylim(len(overview.arms) - 0.5, -0.5)
    axes.set_xlabel(literal(overview.metric), color=INK[theme])
    dress(axes, theme)
    return encoded(figure, kind)
