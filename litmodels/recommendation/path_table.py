"""Means and standard errors of path measures, one row a planner."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev

from torch import Tensor, distributed

Row = dict[str, list[float]]


class PathTable:
    """Collects one value a path, and prints what came of them.

    Values that are not numbers (a measure that a path does not have) are left out of the mean; the
    column ``paths`` of a row says how many paths there were.

    Attributes:
        rows: planner -> measure -> one number a path that has it.
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
        """Put together what the processes of a run collected; all of them call it."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        parts: list[dict[str, Row]] = [{} for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(parts, self.rows)
        self.rows = {}
        for part in parts:
            for planner, row in part.items():
                mine = self.rows.setdefault(planner, {})
                for name, numbers in row.items():
                    mine.setdefault(name, []).extend(numbers)

    def means(self) -> dict[str, float]:
        """``planner/measure`` -> mean; NaN without a number."""
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


def _mean(numbers: list[float]) -> float:
    return fmean(numbers) if numbers else math.nan


def _cell(numbers: list[float]) -> str:
    """Mean and standard error, the sample standard deviation over the root of the number."""
    mean = _mean(numbers)
    error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.nan
    digits = 1 if abs(mean) >= 10 else 3
    return f"{mean:+.{digits}f}±{error:.{digits}f}"
