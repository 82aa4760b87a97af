"""Figures of paired comparisons, drawn without pyplot's global state."""

import io
import math
from typing import TYPE_CHECKING

from lightning_plugins.reports.report_data import ClaimEvidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = {"light": "#1f6feb", "dark": "#6cb0ff"}
INK = {"light": "#24292f", "dark": "#d7dde4"}
FAINT = {"light": "#b4bcc6", "dark": "#4a525c"}
_LONGEST_NAME = 34


def paired_figure(claim: ClaimEvidence, theme: str = "light", kind: str = "svg") -> bytes:
    """Left: every seed's value in each arm, joined by seed. Right: the paired contrasts.

    Args:
        claim: evidence with ``arms`` and ``contrasts``.
        theme: ``light`` or ``dark``; the background is transparent.
        kind: ``svg`` or ``png``.

    Returns:
        The encoded image.

    Raises:
        ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'figures need matplotlib: pip install "lightning-plugins[report]"'
        ) from error
    rows = max(len(claim.contrasts), 2)
    figure = Figure(figsize=(8.4, max(2.7, 1.0 + 0.55 * rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    _draw_arms(left, claim, theme)
    _draw_contrasts(right, claim, theme)
    for axes in (left, right):
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
    if sum(map(len, names)) > _LONGEST_NAME:
        axes.tick_params(axis="x", labelrotation=20)
    axes.set_title(f"{literal(claim.metric)}, one line a seed")


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
    axes.set_yticks(
        range(len(claim.contrasts)), [_wrapped(contrast.label) for contrast in claim.contrasts]
    )
    axes.set_ylim(max(len(claim.contrasts), 2) - 0.5, -0.5)
    axes.set_title(f"paired difference, {100 * claim.confidence:.0f} % interval")


def dress(axes: "Axes", theme: str) -> None:
    """Axes as in all figures of a report: no box, no background, small type."""
    ink = INK[theme]
    axes.patch.set_alpha(0)
    axes.title.set_color(ink)
    axes.title.set_fontsize(10)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT[theme])
    axes.tick_params(colors=ink, labelsize=9, color=FAINT[theme])


def encoded(figure: "Figure", kind: str) -> bytes:
    """The figure as ``svg`` or ``png``, the same bytes whenever it is drawn."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    # Without a salt the identifiers inside an SVG would be drawn at random.
    with rc_context({"svg.hashsalt": "lightning-plugins"}):
        figure.savefig(buffer, format=kind, transparent=True, dpi=150, metadata=metadata)
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text as it stands: a dollar sign would start matplotlib's mathematics."""
    return text.replace("$", r"\$")


def _wrapped(text: str, width: int = 26) -> str:
    import textwrap

    return literal("\n".join(textwrap.wrap(text, width)))
