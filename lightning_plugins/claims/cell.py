"""The result of one run of an experiment."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict


class Cell(TypedDict):
    """Result of one (arm, seed).

    ``metrics`` maps names to numbers (NaN if a run diverged), ``series`` maps names to lists of
    numbers (a curve over steps or epochs). The metric ``on_grid_edge`` is reserved: 1.0 means that
    the arm's tuned value was the best one at the edge of its grid. Every claim about that arm is
    then inconclusive.
    """

    metrics: dict[str, float]
    series: NotRequired[dict[str, list[float]]]


def checked_cell(cell: Cell) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return metrics and series of a cell as plain floats.

    Raises:
        ValueError: If ``cell``, the return value of ``run``, has another form.
    """
    if not isinstance(cell, Mapping) or not isinstance(cell.get("metrics"), Mapping):
        raise ValueError(f'run must return {{"metrics": {{name: number}}, …}}, got {cell!r:.80}')
    try:
        metrics = {str(name): float(x) for name, x in cell["metrics"].items()}
        series = {
            str(name): [float(x) for x in curve] for name, curve in cell.get("series", {}).items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"metrics and series must hold numbers: {error}") from error
    return metrics, series
