"""A picture of a run's curves with its phases as bands, and a prediction on top."""

from collections.abc import Mapping, Sequence

from lightning_plugins.reports.curves import Picture, matplotlib_classes, rendered
from lightning_plugins.reports.figures import ACCENT, INK, literal

_SHADES = ("#9aa5b1", "#d8dee4", "#e0b04a", "#4cc26b")


def phase_picture(
    steps: Sequence[float],
    values: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]],
    bands: Mapping[str, tuple[float, float]],
) -> Picture:
    """Draw each of ``values`` in a panel of its own, over shaded phases.

    Args:
        steps: optimizer steps of the points.
        values: name -> one value a step.
        reference: name -> one predicted value a step, for some of the names.
        bands: phase -> the steps from which and to which it lasts.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(7.2, 0.8 + 2.0 * len(values)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curve) in zip(panels, values.items(), strict=True):
        for shade, (begin, end) in zip(_SHADES, bands.values(), strict=False):
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
        panels[0].annotate(
            label,
            ((begin + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
        )
    panels[-1].set_xlabel("optimizer step")
    return rendered(figure, canvas)
