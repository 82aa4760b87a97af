"""Finished cells on disk: one JSON file each, found by the hash of everything they depend on."""

import contextlib
import json
import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.claims.fingerprints import sha256_of
from lightning_plugins.claims.row_files import RowFiles
from lightning_plugins.reports.writer import write_text_atomically

_FORMAT = 1


@dataclass(frozen=True)
class CellIdentity:
    """Everything that a result depends on; cells with equal identities are the same run."""

    paper: str
    experiment: str
    arm: str
    scale: str
    seed: int
    config: dict[str, Any]
    source_sha256: str
    versions: dict[str, str]

    @property
    def key(self) -> str:
        """SHA-256 of the identity's canonical JSON."""
        return sha256_of(asdict(self))


@dataclass(frozen=True)
class CellRecord:
    """A finished cell.

    ``rules`` maps each claim on the experiment to the hash of its rule at the time of the run.
    ``sources`` names the modules and recipes whose hash is part of the identity.
    ``finished`` is UTC in ISO 8601, ``seconds`` is wall time. NaN and infinity are stored as JSON
    null and are read back as NaN.
    """

    identity: CellIdentity
    metrics: dict[str, float]
    series: dict[str, list[float]]
    rules: dict[str, str]
    seconds: float
    finished: str
    sources: tuple[str, ...] = ()


class ResultStore:
    """A folder of cell records, and the rows of a repository, which are only read.

    Args:
        folder: Location of the records; created when the first one is saved.
        rows: Finished cells of other machines.
    """

    def __init__(self, folder: Path, rows: RowFiles | None = None) -> None:
        self.folder = folder
        self.rows = rows

    def path(self, identity: CellIdentity) -> Path:
        """Return the file of a cell, named after ``identity.key``."""
        return self.folder / f"{identity.key}.json"

    def load(self, identity: CellIdentity) -> CellRecord | None:
        """Return the stored record, or None if there is none.

        A file that cannot be read as this cell's record causes a warning with its path and counts
        as missing, so the cell is computed again and the file is replaced.
        """
        path = self.path(identity)
        committed = self._rows_of(identity.paper)
        try:
            if path.exists():
                stored = json.loads(path.read_text("utf-8"))
            elif identity.key in committed:
                stored = json.loads(committed[identity.key])
            else:
                return None
            if stored["format"] != _FORMAT or sha256_of(stored["identity"]) != identity.key:
                raise ValueError("it contains another cell")
            return CellRecord(
                identity=identity,
                metrics={str(name): _read(x) for name, x in stored["metrics"].items()},
                series={
                    str(name): [_read(x) for x in curve] for name, curve in stored["series"].items()
                },
                rules={str(name): str(rule) for name, rule in stored["rules"].items()},
                seconds=float(stored["seconds"]),
                finished=str(stored["finished"]),
                sources=tuple(map(str, stored.get("sources", ()))),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warnings.warn(
                f"{path} is not a readable result and is computed again: {error}", stacklevel=2
            )
            return None

    def seen(self, paper: str, scale: str) -> list[dict[str, Any]]:
        """Return every stored cell of a paper at a scale, as plain data, the oldest first.

        Cells of other sources and package versions are included, because somebody may have seen
        their numbers. Unreadable files are skipped.
        """
        texts = list(self._rows_of(paper).values())
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                texts.append(path.read_text("utf-8"))
        seen = {}
        for text in texts:
            try:
                stored = json.loads(text)
                identity = stored["identity"]
                if (identity["paper"], identity["scale"]) == (paper, scale):
                    dict(stored["rules"]), dict(stored["metrics"])
                    seen[sha256_of(identity)] = stored
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return sorted(seen.values(), key=lambda stored: str(stored["finished"]))

    def rules_seen(self, paper: str, scale: str) -> list[tuple[str, str, dict[str, str]]]:
        """Return (experiment, arm, rules) of every cell of :meth:`seen`."""
        return [
            (stored["identity"]["experiment"], stored["identity"]["arm"], dict(stored["rules"]))
            for stored in self.seen(paper, scale)
        ]

    def save(self, record: CellRecord) -> None:
        """Write the record atomically."""
        text = json.dumps(plain_record(record), indent=1, sort_keys=True, allow_nan=False)
        write_text_atomically(self.path(record.identity), text + "\n")

    def _rows_of(self, paper: str) -> dict[str, str]:
        return {} if self.rows is None else self.rows.records(paper)


def plain_record(record: CellRecord) -> dict[str, Any]:
    """Return a record as JSON data."""
    return {
        "format": _FORMAT,
        "key": record.identity.key,
        **asdict(record),
        "metrics": {name: _write(x) for name, x in record.metrics.items()},
        "series": {name: [_write(x) for x in curve] for name, curve in record.series.items()},
    }


def _write(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read(value: float | None) -> float:
    return math.nan if value is None else float(value)
