"""``lightning-plugins schedule``: the learning rates and phases of a run, before the run."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import Strategy

from lightning_plugins._lightning_compat.loops import callbacks_of, optimizer_steps
from lightning_plugins.callbacks.staged_training import StagedTraining
from lightning_plugins.cli.options import split_options
from lightning_plugins.cli.plugin_cli import PluginCLI
from lightning_plugins.errors import user_errors_in_one_line

_POINTS = 1000
_MOST_PANELS = 6
_MOST_PARTS = 8

Curve = tuple[float, ...]
"""The learning rate of each optimizer step."""


@dataclass(frozen=True)
class PlannedRun:
    """What a run will do to its learning rates.

    Attributes:
        rates: Names of the parameter groups with equal rates -> rate of each optimizer step.
        phases: Phase of a callback or strategy -> its first step, and the first one after it.
        notes: What is not known before the run.
    """

    rates: dict[str, Curve]
    phases: dict[str, tuple[float, float]]
    notes: list[str]

    def lines(self) -> list[str]:
        """Describe each curve and phase in a line."""
        total = len(next(iter(self.rates.values())))
        lines = [f"{total} optimizer steps"]
        lines += [f"lr/{name}: {_described(curve)}" for name, curve in self.rates.items()]
        for name, (first, last) in self.phases.items():
            lines.append(f"{name}: steps {first:.0f} to {min(last, total):.0f}")
        return lines + self.notes


def show_schedule(cli: PluginCLI, output: Path) -> None:
    """Print the schedule of a configuration and draw it.

    Args:
        cli: The configuration, built on the meta device.
        output: The picture.
    """
    from lightning_plugins.reports.run_pictures import phase_picture
    from lightning_plugins.reports.writer import write_bytes_atomically

    with user_errors_in_one_line():
        run = planned_run(cli)
        print("\n".join(run.lines()), flush=True)
        shown = dict(list(run.rates.items())[:_MOST_PANELS])
        steps = _drawn_steps(len(next(iter(shown.values()))))
        values = {f"lr/{name}": [curve[n] for n in steps] for name, curve in shown.items()}
        total = steps[-1] + 1
        bands = {  # a single step would be invisible
            name: (min(first, 0.995 * total), min(last, total))
            for name, (first, last) in run.phases.items()
        }
        write_bytes_atomically(output, phase_picture(steps, values, {}, bands).png)
        print(f"wrote {output}")


def schedule_arguments(arguments: list[str]) -> tuple[Path, list[str]]:
    """Return the file of the picture, and the options of the configuration.

    Raises:
        ValueError: The file is not a PNG file.
    """
    own, rest = split_options(arguments, "--output")
    output = Path(own.get("--output", "schedule.png"))
    if output.suffix != ".png":
        raise ValueError(f"--output: {str(output)!r} does not end with .png")
    return output, rest


def planned_run(cli: PluginCLI) -> PlannedRun:
    """Advance the schedules of a run without its steps.

    The data is prepared only if the length of the run, or of an epoch, depends on it.

    Raises:
        ValueError: The run has no known end, or no optimizer.
    """
    trainer: Any = cli.trainer
    model = cli.model
    if trainer.max_epochs is None:  # as Trainer.fit does
        trainer.fit_loop.max_epochs = -1 if trainer.max_steps != -1 else 1000
    trainer.strategy.connect(model)
    model.trainer = trainer
    planning: list[Any] = [one for one in callbacks_of(trainer) if _has_phases(one)]
    if trainer.max_epochs != -1 or any(getattr(one, "needs_epochs", False) for one in planning):
        _load_data(cli)
    total = optimizer_steps(trainer)
    if total == float("inf"):
        raise ValueError(
            "schedule: the run has no known end; set trainer.max_steps, or trainer.max_epochs and "
            "trainer.limit_train_batches"
        )
    staged = [one for one in planning if isinstance(one, StagedTraining)]
    for one in staged:
        one.setup(trainer, model, "fit")  # it groups the parameters
    with torch.device("meta"):
        model.configure_model()
        Strategy.setup_optimizers(trainer.strategy, trainer)
    if not trainer.optimizers:
        raise ValueError(f"schedule: {type(model).__name__} has no optimizer")
    rates, notes = _advanced(trainer, model, staged, int(total))
    phases: dict[str, tuple[float, float]] = {}
    for callback in planning:
        for name, part in callback.planned_phases(trainer).items():
            phases[name if name not in phases else f"{name} {len(phases)}"] = part
    if getattr(getattr(trainer.strategy, "communication", None), "final_merge", False):
        phases.setdefault("merge", (total - 1, total))
    return PlannedRun(rates, phases, notes)


def _has_phases(plugin: Any) -> bool:
    return callable(getattr(plugin, "planned_phases", None))


def _load_data(cli: PluginCLI) -> None:
    trainer: Any = cli.trainer
    if cli.datamodule is not None:
        cli.datamodule.trainer = trainer
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
    trainer._data_connector.attach_data(cli.model, datamodule=cli.datamodule)
    trainer.fit_loop.setup_data()


def _advanced(
    trainer: Any, model: LightningModule, staged: list[StagedTraining], total: int
) -> tuple[dict[str, Curve], list[str]]:
    groups = [group for one in trainer.optimizers for group in one.param_groups]
    names = [str(group.get("name", number)) for number, group in enumerate(groups)]
    curves: list[list[float]] = [[] for _ in groups]
    configs = trainer.lr_scheduler_configs
    by_metric = [one for one in configs if one.reduce_on_plateau]
    in_epochs = [one for one in configs if one.interval == "epoch" and one not in by_metric]
    if in_epochs and trainer.max_epochs == -1:
        raise ValueError(
            f"schedule: {type(in_epochs[0].scheduler).__name__} advances each epoch, whose length "
            "is unknown with trainer.max_steps alone; set trainer.max_epochs"
        )
    of_epoch = total if trainer.max_epochs == -1 else max(1, round(total / trainer.max_epochs))
    with warnings.catch_warnings():
        # Nothing is trained, so no optimizer steps before its schedule.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        for step in range(1, total + 1):
            for callback in staged:
                epoch, batch = divmod(step - 1, of_epoch)
                trainer.fit_loop.epoch_progress.current.completed = epoch
                batch *= trainer.accumulate_grad_batches
                callback.on_train_batch_start(trainer, model, None, batch)
            for curve, group in zip(curves, groups, strict=True):
                curve.append(float(group["lr"]))
            for one in configs:
                count = step if one.interval == "step" else step // of_epoch
                ends = one.interval == "step" or step % of_epoch == 0
                if one not in by_metric and ends and count % one.frequency == 0:
                    one.scheduler.step()
    notes = [
        f"{type(one.scheduler).__name__} follows {one.monitor}, which is unknown before the run"
        for one in by_metric
    ]
    found: dict[Curve, list[str]] = {}
    for name, curve in zip(names, curves, strict=True):
        found.setdefault(tuple(curve), []).append(name)
    return {_joined(equal): curve for curve, equal in found.items()}, notes


def _joined(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _described(curve: Curve) -> str:
    """Return a line such as `0.0003, rises to 0.003 by step 10, constant until step 90`."""
    parts = list(_parts(curve))
    text = [f"{curve[0]:.3g}"]
    for way, step in parts[:_MOST_PARTS]:
        rate = f"{curve[step - 1]:.3g}"
        text.append(f"{way} {rate} by step {step}" if way else f"constant until step {step}")
    if len(parts) > _MOST_PARTS:
        text.append(f"and {len(parts) - _MOST_PARTS} more changes")
    return ", ".join(text)


def _parts(curve: Curve) -> Iterator[tuple[str, int]]:
    """Yield what the curve does, "" if it is constant, and the number of steps until then."""
    ways = ["rises to" if b > a else "falls to" if b < a else "" for a, b in pairwise(curve)]
    step = 1
    for way, steps in groupby(ways):
        step += len(list(steps))
        yield way, step


def _drawn_steps(total: int) -> list[int]:
    stride = max(1, total // _POINTS)
    return sorted({*range(0, total, stride), total - 1})
