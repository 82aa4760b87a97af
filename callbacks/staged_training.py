"""Trains in stages, each with its own trainable parts, learning rates and data."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.loops import steps_of_epochs
from lightning_plugins._lightning_compat.processes import finds_unused_parameters
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.replica_check import add_replica_check
from lightning_plugins.callbacks.unsupported_strategies import (
    refuse_sharded,
    refuse_simulated_agents,
)
from lightning_plugins.nn.shards import reshard


@dataclass
class TrainingStage:
    """One stage of :class:`StagedTraining`.

    Args:
        epochs: The number of epochs.
        learning_rates: Regular expression -> peak learning rate. The first expression that matches
            a part of a parameter's name applies. Parameters without a match are frozen.
        data: Attributes to set on the DataModule in this stage, such as ``caption_mode: flatten``.
    """

    epochs: int
    learning_rates: dict[str, float]
    data: dict[str, Any] = field(default_factory=dict)


torch.serialization.add_safe_globals([TrainingStage])


class StagedTraining(PluginCallback):
    """Splits one fit into stages with their own trainable parts, learning rates and data.

    Each stage starts with an empty optimizer state and its own schedule: a linear warm-up, then a
    cosine to 0. A fit of three stages therefore equals three fits of one stage each, in which each
    fit continues from the weights of the previous one. Frozen parts receive no gradients and keep
    their exact values. All other settings, such as weight decay, are those of the optimizer that
    ``configure_optimizers`` returns; a schedule is refused.

    An interrupted run resumes in its stage.

    Source: the three stages of CCExpert (Wang et al., arXiv 2411.11360): the difference module and
    the projector, then all parts, on a large data set; then all parts on the data of the task.

    Args:
        stages: The stages in order; their epochs must sum to the Trainer's ``max_epochs``.
        warmup: The share of each stage in which its learning rates rise, in [0, 1).

    Raises:
        ValueError: There are no stages, a stage has no epochs or no learning rates, or an
            expression matches no parameter.
        MisconfigurationException: ``max_epochs`` differs; the module has several optimizers or a
            schedule; stages have ``data`` without ``reload_dataloaders_every_n_epochs=1`` or
            without such an attribute; a loader has no length; DDP does not look for unused
            parameters; the strategy is FSDP (version 1) or DeepSpeed; or there are several stages
            with simulated agents.

    Example::

        stages = [
            TrainingStage(1, {"difference|projector": 1e-5}),
            TrainingStage(2, {"vision_tower": 2e-6, ".*": 1e-5}),
        ]
        trainer = Trainer(max_epochs=3, callbacks=[StagedTraining(stages)])
    """

    def __init__(self, stages: list[TrainingStage], warmup: float = 0.03) -> None:
        if not stages:
            raise ValueError("stages=[]: expected at least one stage")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup}: expected a share in [0, 1)")
        for number, stage in enumerate(stages):
            _check_stage(number, stage)
        self.stages = stages
        self.warmup = warmup
        self._stage: int | None = None
        self._data_stage = 0
        self._requires_grad_is_unset = True
        self._rates: list[list[float]] = []
        self._optimizer: Optimizer | None = None
        self._trainer: Trainer | None = None
        self._release: Callable[[], None] | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp"))
        if len(self.stages) > 1:
            refuse_simulated_agents(
                trainer, f"StagedTraining of {len(self.stages)} stages", "train one stage per fit"
            )
        total = sum(stage.epochs for stage in self.stages)
        if trainer.max_epochs != total:
            raise MisconfigurationException(
                f"max_epochs={trainer.max_epochs}: the stages have {total} epochs; set "
                f"max_epochs={total}"
            )
        if isinstance(trainer.strategy, DDPStrategy) and not finds_unused_parameters(trainer):
            raise MisconfigurationException(
                "StagedTraining freezes parameters, which DDP reports as an error: set "
                "strategy='ddp_find_unused_parameters_true'"
            )
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        if any(stage.data for stage in self.stages) and every != 1:
            raise MisconfigurationException(
                f"reload_dataloaders_every_n_epochs={every}: stages with their own data require 1"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the optimizer one group for each set of parameters with the same learning rates."""
        if stage != "fit":
            return
        self.check(trainer)
        add_replica_check(trainer)
        # Reset after an earlier fit; a checkpoint is loaded after this hook.
        self._stage, self._data_stage = None, 0
        self._trainer = trainer
        original = pl_module.configure_optimizers
        of_instance = "configure_optimizers" in vars(pl_module)  # set by the command line

        def grouped() -> Optimizer:
            optimizer = original()
            if not isinstance(optimizer, Optimizer):
                raise MisconfigurationException(
                    "StagedTraining sets the learning rates: configure_optimizers of "
                    f"{type(pl_module).__name__} has to return one optimizer, without a schedule"
                )
            self._regroup(optimizer, pl_module)
            self._optimizer = optimizer
            return optimizer

        def release() -> None:
            if of_instance:
                pl_module.configure_optimizers = original  # type: ignore[method-assign]
            else:
                vars(pl_module).pop("configure_optimizers", None)

        pl_module.configure_optimizers = grouped  # type: ignore[method-assign]
        self._release = release

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the data of the first stage; or of the checkpoint's, if it is loaded already."""
        self._set_data(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze parameters again at the first batch, because the module may be a new one."""
        self._requires_grad_is_unset = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a loader without a length, because the learning rates would never rise."""
        if math.isinf(trainer.num_training_batches):
            raise MisconfigurationException(
                "StagedTraining computes learning rates from the progress of the epoch, and the "
                "training loader has no length: set trainer.limit_train_batches to the number of "
                "batches"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the next stage if it is due, and set the learning rates."""
        current, first_epoch = self._stage_at(trainer.current_epoch)
        optimizer = self._optimizer
        assert optimizer is not None
        if current != self._stage and self._stage is not None:
            optimizer.state.clear()
        if current != self._stage or self._requires_grad_is_unset:
            self._stage, self._requires_grad_is_unset = current, False
            for group, rates in zip(optimizer.param_groups, self._rates, strict=True):
                for parameter in group["params"]:
                    parameter.requires_grad_(rates[current] > 0)
                    if not rates[current]:
                        parameter.grad = None
            reshard(pl_module)
        epochs_done = trainer.current_epoch - first_epoch + batch_idx / trainer.num_training_batches
        share = self._share_of_peak(float(epochs_done) / self.stages[current].epochs)
        for group, rates in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rates[current] * share

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Select the stage of the next epoch before its data loaders are created."""
        if trainer.current_epoch + 1 < sum(stage.epochs for stage in self.stages):
            self._data_stage = self._stage_at(trainer.current_epoch + 1)[0]
            self._set_data(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module, because it may be used again."""
        if self._release is not None:
            self._release()
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad_(True)
        self._release = self._optimizer = self._trainer = None

    needs_epochs = True

    def planned_phases(self, trainer: Trainer) -> dict[str, tuple[float, float]]:
        """Return each stage in optimizer steps, for the schedule of the command line."""
        ends = [0, *accumulate(stage.epochs for stage in self.stages)]
        return {
            f"stage {number}": (steps_of_epochs(trainer, first), steps_of_epochs(trainer, last))
            for number, (first, last) in enumerate(pairwise(ends), 1)
        }

    def run_summary(self, trainer: Trainer) -> str:
        """Return the first epoch of each stage, for the summary of the command line."""
        firsts = accumulate((stage.epochs for stage in self.stages), initial=0)
        reached = [str(first) for first in list(firsts)[:-1] if first < trainer.current_epoch]
        return f"{len(reached)} of {len(self.stages)} stages, from epochs {', '.join(reached)}"

    def state_dict(self) -> dict[str, Any]:
        """Return the stage of the optimizer state, and the stage of the next epoch's data."""
        return {"stage": self._stage, "data_stage": self._data_stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue in the checkpoint's stage."""
        self._stage, self._data_stage = state_dict["stage"], state_dict["data_stage"]
        if self._trainer is not None:  # sharded strategies load checkpoints after on_fit_start
            self._set_data(self._trainer)

    def _stage_at(self, epoch: int) -> tuple[int, int]:
        """Return the stage of an epoch, and the first epoch of the stage."""
        first = 0
        for number, stage in enumerate(self.stages):
            if epoch < first + stage.epochs or number == len(self.stages) - 1:
                return number, first
            first += stage.epochs
        raise AssertionError("there is at least one stage")

    def _share_of_peak(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))

    def _regroup(self, optimizer: Optimizer, pl_module: LightningModule) -> None:
        """Split each parameter group by the learning rates of its parameters in the stages."""
        names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        for number, stage in enumerate(self.stages):
            for pattern in stage.learning_rates:
                if not any(re.search(pattern, name) for name in names.values()):
                    raise ValueError(
                        f"stages[{number}].learning_rates: {pattern!r} matches no parameter "
                        f"name; the names are {', '.join(list(names.values())[:5])}, …"
                    )
        groups, rates_of_groups = [], []
        for group in optimizer.param_groups:
            by_rates: dict[tuple[float, ...], list[Any]] = {}
            for parameter in group["params"]:
                if parameter.requires_grad:  # parameters that the module froze stay frozen
                    rates = self._rates_of(names[id(parameter)])
                    by_rates.setdefault(rates, []).append(parameter)
            for rates, parameters in by_rates.items():
                groups.append({**group, "params": parameters})
                groups[-1].pop("param_names", None)
                rates_of_groups.append(list(rates))
        optimizer.param_groups.clear()
        for group in groups:
            optimizer.add_param_group(group)
        self._rates = rates_of_groups

    def _rates_of(self, name: str) -> tuple[float, ...]:
        return tuple(
            next((rate for p, rate in stage.learning_rates.items() if re.search(p, name)), 0.0)
            for stage in self.stages
        )

    def _set_data(self, trainer: Trainer) -> None:
        datamodule = getattr(trainer, "datamodule", None)
        for name, value in self.stages[self._data_stage].data.items():
            if not hasattr(datamodule, name):
                raise MisconfigurationException(
                    f"stages[{self._data_stage}].data: {type(datamodule).__name__} has no "
                    f"attribute {name!r}"
                )
            setattr(datamodule, name, value)


def _check_stage(number: int, stage: TrainingStage) -> None:
    if stage.epochs < 1:
        raise ValueError(f"stages[{number}].epochs={stage.epochs}: expected at least 1")
    if not stage.learning_rates or min(stage.learning_rates.values()) < 0:
        raise ValueError(
            f"stages[{number}].learning_rates={stage.learning_rates}: expected patterns of "
            "parameter names with rates of 0 or more"
        )
    for pattern in stage.learning_rates:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"stages[{number}].learning_rates: {pattern!r} is not a regular expression: {error}"
            ) from error
