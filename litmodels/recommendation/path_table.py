"""A table of path measures: mean and standard error per planner."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import TypeVar

from torch import Tensor, distributed

from lightning_plugins.nn.plain_gather import all_gather_plain

Row = dict[str, list[float]]
T = TypeVar("T")


class PathTable:
    """Collects one value per path and measure; ``str`` formats means and standard errors.

    NaN values (measures that are undefined for a path) are excluded from the mean. The column
    ``paths`` is the number of paths.

    Attributes:
        rows: Planner -> measure -> one value per path for which the measure is defined.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, planner: str, values: Mapping[str, Tensor]) -> None:
        """Add values ``(paths,)`` of each measure."""
        row = self.rows.setdefault(planner, {})
        for name, column in values.items():
            numbers = row.setdefault(name, [])
            numbers += [value for value in column.tolist() if not math.isnan(value)]

    def gather(self) -> None:
        """Gather the values of all processes. Every process must call it."""
        parts = gathered([self.rows])
        self.rows = {}
        for part in parts:
            for planner, row in part.items():
                mine = self.rows.setdefault(planner, {})
                for name, numbers in row.items():
                    mine.setdefault(name, []).extend(numbers)

    def means(self) -> dict[str, float]:
        """Return ``planner/measure`` -> mean; NaN without values."""
        return {
            f"{planner}/{name}": _mean(numbers)
            for planner, row in self.rows.items()
            for name, numbers in row.items()
        }

    def __str__(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        lines = [["planner", "paths", *names]]
        for planner, row in self.rows.items():
            paths = max(map(len, row.values()), default=0)
            lines.append([planner, str(paths), *(_cell(row[name]) for name in names)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )


def gathered(values: list[T]) -> list[T]:
    """Return the plain values of all processes, by rank. Every process must call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(values)
    return [value for part in all_gather_plain(values) for value in part]


def _mean(numbers: list[float]) -> float:
    return fmean(numbers) if numbers else math.nan


def _cell(numbers: list[float]) -> str:
    """Format mean and standard error (sample standard deviation over the root of the count)."""
    mean = _mean(numbers)
    error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
    digits = 1 if abs(mean) >= 10 else 3
    return f"{mean:+.{digits}f}±{error:.{digits}f}"
