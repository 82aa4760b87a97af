"""The figures of a claims report: a claim's contrasts, and an overview of all arms."""

import math
import textwrap
from typing import TYPE_CHECKING

from lightning_plugins.reports.drawing import (
    ACCENT,
    FAINT,
    INK,
    dress,
    encoded,
    literal,
    new_figure,
)
from lightning_plugins.reports.report_data import ClaimEvidence, OverviewEvidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_HORIZONTAL_CHARACTERS = 34


def paired_figure(claim: ClaimEvidence, theme: str = "light", kind: str = "svg") -> bytes:
    """Draw the values per seed and arm on the left, and the paired contrasts on the right.

    Args:
        claim: Evidence with ``arms`` and ``contrasts``.
        theme: ``light`` or ``dark``. The background is transparent.
        kind: ``svg`` or ``png``.

    Returns:
        The encoded image.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = max(len(claim.contrasts), 2)
    figure = new_figure(8.4, max(2.7, 1.0 + 0.55 * rows))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    _draw_arms(left, claim, theme)
    _draw_contrasts(right, claim, theme)
    for axes in (left, right):
        dress(axes, theme)
    return encoded(figure, kind)


def overview_figure(overview: OverviewEvidence, theme: str = "light", kind: str = "svg") -> bytes:
    """Draw one row per arm: the values of its seeds, their mean, and the interval of the mean.

    Args:
        overview: Evidence with at least one arm.
        theme: ``light`` or ``dark``. The background is transparent.
        kind: ``svg`` or ``png``.

    Returns:
        The encoded image.

    Raises:
        ImportError: matplotlib is not installed.
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


def _draw_arms(axes: "Axes", claim: ClaimEvidence, theme: str) -> None:
    names = list(claim.arms)
    seeds = sorted({seed for values in claim.arms.values() for seed in values})
    for seed in seeds:
        points = [claim.arms[name].get(seed, math.nan) for name in names]
        axes.plot(points, color=FAINT[theme], linewidth=1, zorder=1)
        axes.plot(points, "o", color=ACCENT[theme], markersize=5, alpha=0.75, zorder=2)
    for place, name in enumerate(names):
        values = [value for value in claim.arms[name].values() if math.isfinite(value)]
        if values:
            mean = math.fsum(values) / len(values)
            axes.plot([place - 0.22, place + 0.22], [mean, mean], color=INK[theme], linewidth=2)
    axes.set_xticks(range(len(names)), [literal(name) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    if sum(map(len, names)) > _MAX_HORIZONTAL_CHARACTERS:
        axes.tick_params(axis="x", labelrotation=20)
    axes.set_title(f"{literal(claim.metric)}, one line per seed")


def _draw_contrasts(axes: "Axes", claim: ClaimEvidence, theme: str) -> None:
    axes.axvline(0, color=INK[theme], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for place, contrast in enumerate(claim.contrasts):
        color = ACCENT[theme] if place == 0 else INK[theme]
        if contrast.margin is not None:
            axes.axvspan(-contrast.margin, contrast.margin, color=FAINT[theme], alpha=0.35, lw=0)
        differences = list(contrast.differences.values())
        axes.plot(
            differences, [place + 0.2] * len(differences), "o", color=FAINT[theme], markersize=4
        )
        if all(map(math.isfinite, contrast.interval)):
            axes.plot(contrast.interval, [place, place], color=color, linewidth=2.5)
        axes.plot([contrast.estimate], [place], "D", color=color, markersize=6)
    labels = [_wrapped(contrast.label) for contrast in claim.contrasts]
    axes.set_yticks(range(len(claim.contrasts)), labels)
    axes.set_ylim(max(len(claim.contrasts), 2) - 0.5, -0.5)
    axes.set_title(f"paired difference, {100 * claim.confidence:.0f} % interval")


def _wrapped(text: str, width: int = 26) -> str:
    return literal("\n".join(textwrap.wrap(text, width)))
