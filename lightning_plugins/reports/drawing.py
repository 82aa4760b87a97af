"""What all pictures share: colours, new figures without pyplot's global state, and encoding."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_plugins.optional_packages import requires
from lightning_plugins.reports.fonts import use_fonts_of_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = {"light": "#1f6feb", "dark": "#6cb0ff"}
INK = {"light": "#24292f", "dark": "#d7dde4"}
FAINT = {"light": "#b4bcc6", "dark": "#4a525c"}


@dataclass(frozen=True)
class Picture:
    """A picture as a PNG file, and as an array ``(height, width, 3)`` of bytes."""

    png: bytes
    pixels: Any


def new_figure(width: float, height: float) -> "Figure":
    """Create a figure of the given size in inches, with its canvas.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def require_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with requires("matplotlib", by="drawing pictures", extra="report"):
        import matplotlib.figure  # noqa: F401


def rendered(figure: "Figure") -> Picture:
    """Draw the figure."""
    import numpy as np

    use_fonts_of_text(figure)
    canvas: Any = figure.canvas
    canvas.draw()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(buffer.getvalue(), np.asarray(canvas.buffer_rgba())[..., :3].copy())


def encoded(figure: "Figure", kind: str) -> bytes:
    """Encode the figure as ``svg`` or ``png``. The bytes are the same each time."""
    from matplotlib import rc_context

    use_fonts_of_text(figure)
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    # Without a salt, matplotlib draws the identifiers inside an SVG at random.
    with rc_context({"svg.hashsalt": "lightning-plugins"}):
        figure.savefig(buffer, format=kind, transparent=True, dpi=150, metadata=metadata)
    return buffer.getvalue()


def dress(axes: "Axes", theme: str) -> None:
    """Style axes like all figures of a report: no box, no background, small type."""
    ink = INK[theme]
    axes.patch.set_alpha(0)
    axes.title.set_color(ink)
    axes.title.set_fontsize(10)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT[theme])
    axes.tick_params(colors=ink, labelsize=9, color=FAINT[theme])


def literal(text: str) -> str:
    """Escape dollar signs, which would start mathematics in matplotlib."""
    return text.replace("$", r"\$")
