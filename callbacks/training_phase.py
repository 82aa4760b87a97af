"""Callbacks that change training during a part of the run, and the part itself."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import callbacks_of, optimizer_steps, steps_of_epochs
from lightning_plugins._lightning_compat.processes import Sharding
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.replica_check import add_replica_check
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded

Unit = Literal["fraction", "epoch", "step"]


@dataclass(frozen=True)
class Phase:
    """The part of a training run from ``start`` to ``end``.

    Args:
        start: The beginning, 0 or more, in ``unit``.
        end: The end, later than ``start``; None means the end of the run.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.

    Raises:
        ValueError: An argument is outside its range.
    """

    start: float
    end: float | None
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in ("fraction", "epoch", "step"):
            raise ValueError(f"unit={self.unit!r}: expected 'fraction', 'epoch' or 'step'")
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start={self.start}: expected 0 or more")
        if self.unit == "fraction" and self.start >= 1:
            raise ValueError(
                f"start={self.start}: expected a fraction of the run below 1; "
                f"for epochs or steps set unit='epoch' or unit='step'"
            )
        if self.end is not None and not self.end > self.start:
            raise ValueError(f"end={self.end}: expected more than start={self.start}")

    def check(self, trainer: Trainer) -> None:
        """Refuse a run that ends before the phase starts, or whose length is unknown.

        Raises:
            ValueError: The run ends before ``start``, or a fraction is given for an endless run.
        """
        endless = trainer.max_epochs == -1 and trainer.max_steps == -1
        for name, moment in (("start", self.start), ("end", self.end)):
            if self.unit == "fraction" and endless and moment:
                raise ValueError(
                    f"{name}={moment} is a fraction of a run without an end: set "
                    "trainer.max_epochs or trainer.max_steps, or use unit='epoch' or unit='step'"
                )
        limit = {"epoch": trainer.max_epochs, "step": trainer.max_steps}.get(self.unit)
        if limit is not None and 0 <= limit <= self.start and not is_shortened(trainer):
            raise ValueError(
                f"start={self.start}: the run ends at {self.unit} {limit}, so this phase would "
                "never begin; choose a smaller start"
            )

    def steps(self, trainer: Trainer) -> tuple[int, float]:
        """Return the first optimizer step of the phase and the first one after it.

        The second number may be infinite. Call this after training has started, because it needs
        the data loaders.

        Raises:
            ValueError: The unit is not ``step`` and the training loader has no length, or the run
                ends before ``start`` and is not shortened by ``fast_dev_run`` or a limit.
        """
        first = self._to_steps("start", self.start, trainer)
        if first and self.unit != "fraction" and not is_shortened(trainer):
            total = optimizer_steps(trainer)
            if total <= first:
                raise ValueError(
                    f"start={self.start}, unit={self.unit!r}: the run ends after {total:.0f} "
                    "optimizer steps, so this phase would never begin; choose a smaller start"
                )
        return first, math.inf if self.end is None else self._to_steps("end", self.end, trainer)

    def _to_steps(self, name: str, moment: float, trainer: Trainer) -> int:
        if self.unit == "step" or not moment:
            return round(moment)
        if self.unit == "fraction":
            steps = moment * optimizer_steps(trainer)
            remedy = "trainer.max_steps, or use unit='step'"
        else:
            steps = steps_of_epochs(trainer, moment)
            remedy = (
                "unit='step', or a fraction of trainer.max_steps, or set "
                "trainer.limit_train_batches to the number of batches of an epoch"
            )
        if math.isinf(steps):
            raise ValueError(
                f"{name}={moment}, unit={self.unit!r}: the training loader has no length, so the "
                f"optimizer step cannot be computed; set {remedy}"
            )
        return round(steps)


torch.serialization.add_safe_globals([Phase])


def is_shortened(trainer: Trainer) -> bool:
    """Return whether ``fast_dev_run`` or ``limit_train_batches`` makes a trial of the real run."""
    options: Any = trainer
    limit = options.limit_train_batches
    return bool(options.fast_dev_run) or isinstance(limit, int) or limit < 1  # 1 is one batch


class PhaseCallback(PluginCallback):
    """Base class of callbacks that change training steps during a phase and at no other time.

    A subclass modifies the training loop in ``on_train_start``, assigns the function that undoes
    the modification to ``_release``, and sets ``first_active_step`` when it first acts.

    Args:
        phase: The part of the run in which the callback is active.

    Attributes:
        first_active_step: The optimizer step at which the callback first acted, or None.
    """

    acts: ClassVar[str]
    """What the callback does, for the error about two of one kind: "perturb the weights"."""
    by_hand: ClassVar[str]
    """The module to use instead in manual optimization."""

    supports_shards: ClassVar[tuple[Sharding, ...]] = ()
    """The kinds of sharding of ``ModelParallelStrategy`` that the callback supports."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.first_active_step: int | None = None
        self._first_step, self._last_step = 0, 0.0
        self._release: Callable[[], None] | None = None

    @property
    def state_key(self) -> str:
        """Distinguishes several of these callbacks in one run by their phases."""
        phase = self.phase
        return self._generate_state_key(start=phase.start, end=phase.end, unit=phase.unit)

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, self.supports_shards)
        self.phase.check(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations before training starts."""
        if stage != "fit":
            return
        self.check(trainer)
        add_replica_check(trainer)
        self.first_active_step = None
        name = type(self).__name__
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{name} needs automatic optimization, which {type(pl_module).__name__} turns off; "
                f"in manual optimization use {self.by_hand}"
            )
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise MisconfigurationException(
                f"{name} does not support a training_step that takes dataloader_iter and fetches "
                "its own batches; take batch instead"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the first and last step, and refuse an overlapping callback of the same kind."""
        self._first_step, self._last_step = self.phase.steps(trainer)
        for other in callbacks_of(trainer):
            if other is self or not isinstance(other, PhaseCallback) or other.acts != self.acts:
                continue
            first, last = other.phase.steps(trainer)
            both_from = max(first, self._first_step)
            if both_from < min(last, self._last_step):
                raise MisconfigurationException(
                    f"two {type(self).__name__} callbacks would both {self.acts} from step "
                    f"{both_from} on: set the end of the first one, or remove one of them"
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the callback never acted."""
        self._detach()
        if self.first_active_step is None:
            phase = self.phase
            rank_zero_warn(
                f"{type(self).__name__}(start={phase.start}, unit={phase.unit!r}) never became "
                f"active: the run ended after {trainer.global_step} optimizer steps"
            )

    def planned_phases(self, trainer: Trainer) -> dict[str, tuple[float, float]]:
        """Return the phase in optimizer steps, for the schedule of the command line."""
        return {type(self).__name__: self.phase.steps(trainer)}

    @property
    def needs_epochs(self) -> bool:
        """Whether the planned phases depend on the length of an epoch."""
        return self.phase.unit == "epoch"

    def run_summary(self, trainer: Trainer) -> str:
        """Return when the callback acted, for the summary of the command line."""
        if self.first_active_step is None:
            return "never active"
        return f"{self._acted()} from step {self.first_active_step}"

    def _acted(self) -> str:
        return "active"

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Undo the modification of the training loop, because the Trainer may be used again."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Undo the modification of the training loop, because the Trainer may be used again."""
        self._detach()

    def _lasts_at(self, step: int) -> bool:
        return self._first_step <= step < self._last_step

    def _detach(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None
