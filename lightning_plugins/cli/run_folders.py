"""The folder of a run: its saved configuration and its checkpoints."""

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_plugins.recipes.sources import plain, read_mapping

CONFIG = "config.yaml"
INTERRUPTED = "interrupted.ckpt"
DEFAULT_ROOTS = ("runs", "lightning_logs")
_RECIPE = re.compile(r"# recipe: (.+)")
_DEPTH = 4
_OF_ONE_COMMAND = ("ckpt_path", "weights_only", "verbose", "return_predictions")


@dataclass(frozen=True)
class Run:
    """A folder with the ``config.yaml`` that ``lightning-plugins fit`` saved."""

    folder: Path

    @property
    def recipe(self) -> str | None:
        """What followed ``--config`` when the run was started, if known."""
        with open(self.folder / CONFIG, encoding="utf-8") as file:
            found = _RECIPE.fullmatch(file.readline().strip())
        return found[1] if found else None

    def config(self) -> dict[str, Any]:
        """Return the saved configuration, with places, without options of a single command.

        Raises:
            ValueError: The file is not a YAML mapping.
        """
        path = self.folder / CONFIG
        config = read_mapping(path.read_text("utf-8"), str(path))
        return {key: value for key, value in config.items() if key not in _OF_ONE_COMMAND}

    def checkpoints(self) -> list[Path]:
        """Return the readable checkpoints, the newest first.

        A checkpoint whose writing was interrupted is left out.
        """
        folders = [self.folder, *(Path(path) for path in texts_at("dirpath", plain(self.config())))]
        found = {path.resolve(): path for folder in folders for path in folder.rglob("*.ckpt")}
        return sorted(filter(_is_complete, found.values()), key=_modified, reverse=True)

    def started(self) -> float:
        """Return when the run was started or resumed last, in seconds since the epoch."""
        return _modified(self.folder / CONFIG)


def find_run(name: str, roots: Iterable[str | Path], recipe: str | None = None) -> Run:
    """Return the run of a folder or of a checkpoint in it, or the newest run.

    Args:
        name: ``last``, a folder or a checkpoint.
        roots: The folders in which ``last`` searches.
        recipe: ``last`` then considers the runs of this recipe only.

    Raises:
        ValueError: There is no such run; the message contains the folders that were searched.
    """
    if name != "last":
        return _run_of(Path(name))
    places = list(dict.fromkeys(map(Path, roots)))
    runs = [run for root in places for run in _runs_below(root)]
    if recipe is not None:
        runs = [run for run in runs if run.recipe == recipe]
    if not runs:
        of_recipe = f" of {recipe}" if recipe else ""
        raise ValueError(
            f"no run{of_recipe} in {', '.join(map(str, places))}: give the run's folder instead "
            "of 'last', or start a run with `lightning-plugins fit`"
        )
    return max(runs, key=Run.started)


def _run_of(path: Path) -> Run:
    if not path.exists():
        raise ValueError(
            f"no folder or checkpoint {str(path)!r}: expected a run's folder or 'last'"
        )
    parents = [path, *path.resolve().parents][:_DEPTH] if path.suffix == ".ckpt" else [path]
    for folder in parents:
        if (folder / CONFIG).is_file():
            inside_here = folder.resolve().is_relative_to(Path.cwd())
            return Run(Path(os.path.relpath(folder)) if inside_here else folder)
    raise ValueError(
        f"{str(path)!r} belongs to no run: no {CONFIG} beside it; continue from a bare checkpoint "
        "with --config RECIPE_OR_FILE --ckpt_path CHECKPOINT"
    )


def _runs_below(root: Path) -> list[Run]:
    patterns = (
        [CONFIG] if root == Path() else ["/".join(["*"] * n + [CONFIG]) for n in range(_DEPTH)]
    )
    return [Run(path.parent) for pattern in patterns for path in root.glob(pattern)]


def texts_at(key: str, node: Any) -> list[str]:
    """Return every text that a nested configuration has at ``key``."""
    if isinstance(node, list):
        return [text for part in node for text in texts_at(key, part)]
    if not isinstance(node, dict):
        return []
    own = [node[key]] if isinstance(node.get(key), str) else []
    return own + [text for part in node.values() for text in texts_at(key, part)]


def _is_complete(path: Path) -> bool:
    # A sharded checkpoint is a folder, whose metadata is written last.
    return zipfile.is_zipfile(path) if path.is_file() else (path / "meta.pt").is_file()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # removed since it was listed
        return 0.0
