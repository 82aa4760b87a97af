"""What callbacks have in common that change training for a part of the run."""

import inspect
from collections.abc import Callable
from typing import ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat import callbacks_of
from lightning_plugins.callbacks.phase import Phase
from lightning_plugins.callbacks.sharded import refuse_sharded


class PhaseCallback(Callback):
    """Changes training steps while its phase lasts, and is not there outside of it.

    A subclass takes its place in the loop in ``on_train_start``, leaves what undoes that in
    ``_release``, and sets ``first_active_step`` when it first acts.

    Args:
        phase: when it is active.

    Attributes:
        first_active_step: optimizer step at which it first acted, if it has.
    """

    acts: ClassVar[str]
    """What two of one kind would both do: "perturb the weights"."""
    by_hand: ClassVar[str]
    """What to use in manual optimization."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.first_active_step: int | None = None
        self._first_step, self._last_step = 0, 0.0
        self._release: Callable[[], None] | None = None

    @property
    def state_key(self) -> str:
        """Tells two of these callbacks in one run apart."""
        phase = self.phase
        return self._generate_state_key(start=phase.start, end=phase.end, unit=phase.unit)

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        refuse_sharded(trainer, self)
        self.phase.check(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, while nothing has been trained."""
        if stage != "fit":
            return
        self.check(trainer)
        self.first_active_step = None
        name = type(self).__name__
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"{name} needs automatic optimization, which {type(pl_module).__name__} turns off; "
                f"in manual optimization use {self.by_hand}"
            )
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise MisconfigurationException(
                f"{name} cannot work with a training_step that takes dataloader_iter and fetches "
                "batches of its own; take batch instead"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the first and last step, and refuse another of its kind at the same time."""
        self._first_step, self._last_step = self.phase.steps(trainer)
        for other in callbacks_of(trainer):
            if other is self or not isinstance(other, PhaseCallback) or other.acts != self.acts:
                continue
            first, last = other.phase.steps(trainer)
            both_from = max(first, self._first_step)
            if both_from < min(last, self._last_step):
                raise MisconfigurationException(
                    f"two {type(self).__name__} callbacks would both {self.acts} from step "
                    f"{both_from} on: give the first an end, or keep one"
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if it never acted."""
        self._detach()
        if self.first_active_step is None:
            phase = self.phase
            rank_zero_warn(
                f"{type(self).__name__}(start={phase.start}, unit={phase.unit!r}) never became "
                f"active: the run ended after {trainer.global_step} optimizer steps"
            )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind in a Trainer that is used again."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind in a Trainer that is used again."""
        self._detach()

    def _lasts_at(self, step: int) -> bool:
        return self._first_step <= step < self._last_step

    def _detach(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None
