"""``--resume`` and ``--run``: commands that continue or evaluate a run from its folder."""

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_plugins.cli.options import changed_values, option_values, split_options
from lightning_plugins.cli.run_folders import DEFAULT_ROOTS, INTERRUPTED, Run, find_run, texts_at
from lightning_plugins.recipes import merge
from lightning_plugins.recipes.sources import plain

_LOGGERS = ("CSVLogger", "TensorBoardLogger")
# Options that change what is printed or stored, but not the weights.
_HARMLESS = (
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.default_root_dir",
    "trainer.limit_test_batches",
    "trainer.limit_predict_batches",
    "data.init_args.num_workers",
)


_FOLDER = {"--run": "the newest run (last) or a run's folder: use its configuration and checkpoint"}
_UNTRAINED = {"--untrained": "evaluate the initial weights (without a value)"}
HELP = {
    "fit": {"--resume": "the newest run (last), a run's folder or a checkpoint in it: continue it"},
    "validate": _FOLDER | _UNTRAINED,
    "test": _FOLDER | _UNTRAINED,
    "predict": _FOLDER | _UNTRAINED,
}


@dataclass
class Command:
    """The arguments of ``fit``, ``validate``, ``test`` or ``predict``, with the run they concern.

    Attributes:
        arguments: What jsonargparse receives.
        recipe: The values of ``--config``, joined by spaces.
        run: The run that is continued or evaluated; None for a new run.
        untrained: Whether weights without training may be evaluated.
        notes: Lines for the user.
    """

    arguments: list[str]
    recipe: str | None = None
    run: Run | None = None
    untrained: bool = False
    notes: list[str] = field(default_factory=list)


def read_command(
    arguments: list[str], load: Callable[[str], dict[str, Any]], verb: str | None = None
) -> Command:
    """Replace ``--resume`` and ``--run`` by the configuration and checkpoint of that run.

    Args:
        arguments: The subcommand and its options.
        load: Returns the configuration of a ``--config`` value.
        verb: What is done with the run, for the note (default: the subcommand).

    Raises:
        ValueError: There is no such run, or the option does not belong to the subcommand.
    """
    subcommand, *options = arguments
    own, rest = split_options(options, "--resume", "--run", flags=("--untrained",))
    configs = option_values(rest, "--config", "-c")
    command = Command(arguments, " ".join(configs) or None, untrained="--untrained" in own)
    wanted = own.get("--resume" if subcommand == "fit" else "--run")
    if len(own) > command.untrained + (wanted is not None) or (
        command.untrained and subcommand == "fit"
    ):
        raise ValueError(
            "fit continues a run with --resume; validate, test and predict evaluate one with "
            "--run, or initial weights with --untrained"
        )
    given: dict[str, Any] = {}
    for config in configs:
        given = merge(given, load(config))
    if wanted is None:
        _refuse_checkpoints_of_no_run(subcommand, rest, given)
        command.arguments = [subcommand, *rest]
        return command
    _, changes = split_options(rest, "--config", "-c")
    command.run = find_run(wanted, _roots(given, changes), command.recipe)
    return _continued(command, subcommand, Path(wanted), changes, verb or f"{subcommand} of")


def _refuse_checkpoints_of_no_run(
    subcommand: str, options: list[str], config: dict[str, Any]
) -> None:
    """Refuse ``--ckpt_path last`` where Lightning would find no checkpoint and only warn."""
    name = [config.get("ckpt_path"), *option_values(options, "--ckpt_path")][-1]
    if name not in ("last", "best"):
        return
    folders = texts_at("dirpath", config) + option_values(options, "--trainer.callbacks.dirpath")
    if name == "last" and any(
        subcommand == "fit" or any(Path(folder).glob("last*.ckpt")) for folder in folders
    ):
        return  # a first `fit` starts from the beginning, and the next one finds its checkpoint
    way = "--resume last" if subcommand == "fit" else "--run last"
    raise ValueError(
        f"ckpt_path={name!r}: {subcommand} starts in a new folder, which has no checkpoint; "
        f"use {way}, or --ckpt_path FILE"
    )


def _continued(
    command: Command, subcommand: str, wanted: Path, options: list[str], verb: str
) -> Command:
    run = command.run
    assert run is not None
    command.recipe = run.recipe
    saved = plain(run.config())
    in_folder = with_log_folder(saved, run.folder, None if subcommand == "fit" else subcommand)
    chosen = option_values(options, "--ckpt_path")
    checkpoint = chosen[-1] if chosen else None
    if checkpoint in ("last", "best", None):
        _, options = split_options(options, "--ckpt_path")
        if wanted.suffix == ".ckpt":
            checkpoint = str(wanted)
        elif subcommand == "fit" or checkpoint == "last":
            checkpoint = _last(run)
        else:
            checkpoint = _best(run) or _last(run)
        if checkpoint is None and subcommand != "fit":
            raise ValueError(f"{run.folder} has no checkpoint: its training has saved none yet")
        options = [*options, *(["--ckpt_path", checkpoint] if checkpoint else [])]
    verb = "continuing" if subcommand == "fit" else verb
    at = f"from {checkpoint}" if checkpoint else "from its beginning: it has no checkpoint yet"
    command.notes.append(f"{verb} {run.folder} {at}")
    changes = [
        f"{key} {before!r} -> {after!r}"
        for key, before, after in changed_values(saved, options)
        if not key.startswith(_HARMLESS)
    ]
    if changes and subcommand == "fit":
        command.notes.append(
            f"changed: {', '.join(changes)}; the run will differ from one without this change"
        )
    text = yaml.safe_dump(in_folder, sort_keys=False)
    command.arguments = [subcommand, "--config", text, *options]
    return command


def with_log_folder(config: dict[str, Any], folder: Path, part: str | None) -> dict[str, Any]:
    """Return ``config`` with loggers that write to ``folder``, or to ``folder/part``.

    Without a logger, and with loggers of other services, the Trainer's own folder is set.
    """
    config = deepcopy(config)
    trainer = config["trainer"] = config.get("trainer") or {}
    if not isinstance(trainer, dict):
        return config  # the parser refuses it
    logger = trainer.get("logger")
    if logger is None or logger is True:  # the Trainer's default
        kind = "CSVLogger" if (folder / "metrics.csv").is_file() else "TensorBoardLogger"
        logger = {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {}}
    loggers = logger if isinstance(logger, list) else [logger]
    inside = folder / part if part else folder
    has_folder = False
    for one in loggers:
        if isinstance(one, dict) and str(one.get("class_path")).endswith(_LOGGERS):
            arguments = one["init_args"] = one.get("init_args") or {}
            if not isinstance(arguments, dict):
                continue
            name = arguments.get("name")
            if name and inside.parent.name == name:
                arguments.update(save_dir=str(inside.parent.parent), version=inside.name)
            else:
                arguments.update(save_dir=str(inside.parent), name="", version=inside.name)
            has_folder = True
    if has_folder:
        trainer["logger"] = logger
    else:
        trainer["default_root_dir"] = str(inside)
    return config


def _roots(config: dict[str, Any], options: list[str]) -> list[str | Path]:
    """The folders in which the runs of this configuration are."""
    trainer = config.get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    found = texts_at("save_dir", trainer.get("logger")) + texts_at("default_root_dir", trainer)
    found += option_values(options, "--trainer.default_root_dir")
    for name in ("--trainer.logger.save_dir", "--trainer.logger.init_args.save_dir"):
        found += option_values(options, name)
    return [*(root for root in found if root), *DEFAULT_ROOTS, Path()]


def _last(run: Run) -> str | None:
    return next(map(str, run.checkpoints()), None)


def _best(run: Run) -> str | None:
    """The best checkpoint by the monitored metric of the run, if one is monitored."""
    checkpoints = run.checkpoints()
    newest = next((path for path in checkpoints if path.is_file()), None)
    if newest is None:
        return None
    state = torch.load(newest, map_location="cpu", weights_only=True, mmap=True)
    for callback in (state.get("callbacks") or {}).values():
        if (
            isinstance(callback, dict)
            and callback.get("monitor")
            and callback.get("best_model_path")
        ):
            name = os.path.basename(callback["best_model_path"])
            found = [path for path in checkpoints if path.name == name != INTERRUPTED]
            if found:
                return str(found[0])
    return None


def checkpoint_step(path: str | Path) -> int:
    """Return the number of optimizer steps after which a checkpoint was saved."""
    path = Path(path) / "meta.pt" if Path(path).is_dir() else path
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return int(state.get("global_step", 0))
