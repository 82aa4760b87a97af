"""Planned paths as JSON lines and as a table, with the identifiers of the data."""

import csv
import io
import json
from collections.abc import Sequence
from itertools import zip_longest

from lightning_plugins.litmodels.recommendation.influence_path import InfluencePath
from lightning_plugins.reports.raw_rows import no_formula


def paths_as_jsonl(paths: Sequence[InfluencePath]) -> str:
    """Format one JSON object per line and path, with the fields of ``InfluencePath``.

    Integer identifiers stay integers. ``usage`` is left out for planners without a language model.
    """
    lines = []
    for path in paths:
        values = path._asdict() | {"usage": path.usage._asdict()}
        if not path.usage.requests:
            del values["usage"]
        lines.append(json.dumps(values, ensure_ascii=False) + "\n")
    return "".join(lines)


def paths_as_csv(paths: Sequence[InfluencePath]) -> str:
    """Format a table with one row per recommendation; a path without items has one row.

    Titles and problems that a spreadsheet would read as a formula get an apostrophe; identifiers
    are unchanged.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(
        (
            "planner",
            "user",
            "target",
            "target_title",
            "step",
            "item",
            "title",
            "accepted",
            "problem",
        )
    )
    for path in paths:
        problem = no_formula(path.problem)
        begin = (path.planner, path.user, path.target, no_formula(path.target_title))
        steps = list(zip_longest(path.items, path.titles, path.is_accepted, fillvalue=""))
        for step, (item, title, is_accepted) in enumerate(steps, 1):
            taken = int(bool(is_accepted))
            rows.writerow((*begin, step, item, no_formula(title), taken, problem))
        if not steps:
            rows.writerow((*begin, 0, "", "", "", problem))
    return file.getvalue()
