"""Finished cells as CSV files that are committed, so that other machines reuse them."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_plugins.claims.fingerprints import sha256_of
from lightning_plugins.reports.writer import write_text_atomically

_COLUMNS = ("experiment", "scale", "arm", "seed", "metrics", "seconds", "finished", "key", "record")
_SOURCES = "sources.json"
_LONGEST = 10_000_000  # characters of a field; a curve can be long

REPOSITORY_ROWS = Path(__file__).parents[2] / "docs" / "results" / "rows"
"""The folder of a clone; it does not exist beside an installed wheel."""


class RowFiles:
    """A folder with one CSV file per paper, and ``sources.json``.

    ``record`` is the rest of the cell as JSON; the other columns are also for readers.
    ``sources.json`` lists the modules and recipes behind each hash of sources, and holds the
    configurations, versions and rules that many cells share; a row has their hashes.

    Args:
        folder: The folder; created when rows are first added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, dict[str, dict[str, str]]] = {}

    def records(self, paper: str) -> dict[str, str]:
        """Return the records of a paper, as JSON texts by key."""
        return {key: row["record"] for key, row in self._of(paper).items()}

    def add(self, paper: str, records: Iterable[Mapping[str, Any]]) -> int:
        """Add the cells that the paper's file does not have, and return their number.

        Args:
            paper: Name of the paper.
            records: Cells as they are stored in their own files, with ``key``.
        """
        rows = dict(self._of(paper))
        sources = self._sources()
        before = len(rows)
        for record in records:
            stored = {
                name: value for name, value in record.items() if name not in ("key", "sources")
            }
            identity = record["identity"]
            if record["key"] in rows:
                continue
            sources[identity["source_sha256"]] = list(record["sources"])
            rows[record["key"]] = {
                **{name: str(identity[name]) for name in ("experiment", "scale", "arm", "seed")},
                "metrics": _json(record["metrics"]),
                "seconds": f"{record['seconds']:.2f}",
                "finished": record["finished"],
                "key": record["key"],
                "record": _json(stored),
            }
        if len(rows) > before:
            text = io.StringIO()
            writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            for row in rows.values():
                record = json.loads(row["record"])
                for place, name in _shared_places(record):
                    sources[sha256_of(place[name])[:16]] = place[name]
                    place[name] = sha256_of(place[name])[:16]
                del record["metrics"]  # they have a column
                writer.writerow({**row, "record": _json(record)})
            write_text_atomically(self.folder / f"{paper}.csv", text.getvalue())
            write_text_atomically(
                self.folder / _SOURCES, json.dumps(sources, indent=0, sort_keys=True) + "\n"
            )
            self._rows[paper] = rows
        return len(rows) - before

    def _of(self, paper: str) -> dict[str, dict[str, str]]:
        if paper not in self._rows:
            path = self.folder / f"{paper}.csv"
            rows = []
            if path.is_file():
                csv.field_size_limit(_LONGEST)
                with path.open(encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file))
                if rows and not set(_COLUMNS) <= rows[0].keys():
                    raise ValueError(f"{path}: expected the columns {', '.join(_COLUMNS)}")
            sources = self._sources()
            for row in rows:
                record = {**json.loads(row["record"]), "metrics": json.loads(row["metrics"])}
                for place, name in _shared_places(record):
                    if place[name] not in sources:
                        raise ValueError(f"{path.with_name(_SOURCES)} lacks {place[name]!r}")
                    place[name] = sources[place[name]]
                row["record"] = _json(record)
            self._rows[paper] = {row["key"]: row for row in rows}
        return self._rows[paper]

    def _sources(self) -> dict[str, Any]:
        path = self.folder / _SOURCES
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _shared_places(record: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(record["identity"], "config"), (record["identity"], "versions"), (record, "rules")]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
