"""Planned paths as JSON lines and as a table, with the identifiers of the data."""

import csv
import io
import json
from collections.abc import Sequence
from itertools import zip_longest

from lightning_plugins.litmodels.recommendation.influence_path import InfluencePath


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
    """Format a table with one row per recommendation; a path without items has one row."""
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
        begin = (path.planner, path.user, path.target, path.target_title)
        steps = list(zip_longest(path.items, path.titles, path.is_accepted, fillvalue=""))
        for step, (item, title, is_accepted) in enumerate(steps, 1):
            rows.writerow((*begin, step, item, title, int(bool(is_accepted)), path.problem))
        if not steps:
            rows.writerow((*begin, 0, "", "", "", path.problem))
    return file.getvalue()
