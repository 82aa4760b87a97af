"""Finished cells on disk: one JSON file each, found by the hash of everything they depend on."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.claims.claim import Cell
from lightning_plugins.claims.fingerprints import sha256_of
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
    ``finished`` is UTC in ISO 8601, ``seconds`` is wall time. NaN and infinity are stored as JSON
    null and are read back as NaN.
    """

    identity: CellIdentity
    metrics: dict[str, float]
    series: dict[str, list[float]]
    rules: dict[str, str]
    seconds: float
    finished: str


class ResultStore:
    """A folder of cell records.

    Args:
        folder: Location of the records; created when the first one is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, identity: CellIdentity) -> Path:
        """Return the file of a cell, named after ``identity.key``."""
        return self.folder / f"{identity.key}.json"

    def load(self, identity: CellIdentity) -> CellRecord | None:
        """Return the stored record, or None if there is none.

        A file that cannot be read as this cell's record causes a warning with its path and counts
        as missing, so the cell is computed again and the file is replaced.
        """
        path = self.path(identity)
        try:
            stored = json.loads(path.read_text("utf-8"))
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
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warnings.warn(
                f"{path} is not a readable result and is computed again: {error}", stacklevel=2
            )
            return None

    def rules_seen(self, paper: str, scale: str) -> list[tuple[str, str, dict[str, str]]]:
        """Return (experiment, arm, rules) of every stored cell of a paper at a scale.

        Cells of other sources and package versions are included, because somebody may have seen
        their numbers. Unreadable files are skipped.
        """
        seen = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                stored = json.loads(path.read_text("utf-8"))
                identity = stored["identity"]
                if (identity["paper"], identity["scale"]) == (paper, scale):
                    seen.append((identity["experiment"], identity["arm"], dict(stored["rules"])))
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
        return seen

    def save(self, record: CellRecord) -> None:
        """Write the record atomically."""
        stored = {
            "format": _FORMAT,
            **asdict(record),
            "metrics": {name: _write(x) for name, x in record.metrics.items()},
            "series": {name: [_write(x) for x in curve] for name, curve in record.series.items()},
        }
        text = json.dumps(stored, indent=1, sort_keys=True, allow_nan=False)
        write_text_atomically(self.path(record.identity), text + "\n")


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


def _write(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _read(value: float | None) -> float:
    return math.nan if value is None else float(value)
