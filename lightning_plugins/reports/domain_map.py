"""A picture of which piece each point of a plane belongs to."""

from typing import Any

from lightning_plugins.reports.curves import Picture, matplotlib_classes, rendered


def domain_map_picture(points: Any, pieces: Any, title: str) -> Picture:
    """Points in the plane, each in the colour of its piece.

    Args:
        points: array ``(points, 2)``.
        pieces: array of whole numbers from 0 ``(points,)``. Colours repeat after 20.
        title: above the picture.

    Raises:
        ImportError: if matplotlib is missing.
    """
    Figure, FigureCanvasAgg = matplotlib_classes()
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = (2 * pieces + pieces // 10) % 20  # dark ones first: tab20 has them in pairs
    axes.scatter(*points.T, c=colours, cmap="tab20", vmin=0, vmax=19, s=6, linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title, fontsize=10)
    return rendered(figure, canvas)
