"""A part of a training run, counted in optimizer steps, epochs or as a fraction."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_plugins._lightning_compat import optimizer_steps, steps_of_epochs

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Unit = Literal["fraction", "epoch", "step"]


@dataclass(frozen=True)
class Phase:
    """From ``start`` until ``end``, or to the end of the run.

    Args:
        start: 0 or more, in ``unit``.
        end: later than ``start``; None is the end of the run.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.

    Raises:
        ValueError: a value outside its range.
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

    def check(self, trainer: "Trainer") -> None:
        """Refuse a run in which the phase cannot begin, or whose length it cannot know.

        Raises:
            ValueError: ``start`` is beyond the end, or a fraction of a run without an end.
        """
        endless = trainer.max_epochs == -1 and trainer.max_steps == -1
        for name, moment in (("start", self.start), ("end", self.end)):
            if self.unit == "fraction" and endless and moment:
                raise ValueError(
                    f"{name}={moment} is a fraction of a run without an end: set "
                    "trainer.max_epochs or trainer.max_steps, or use unit='epoch' or unit='step'"
                )
        limit = {"epoch": trainer.max_epochs, "step": trainer.max_steps}.get(self.unit)
        if limit is not None and 0 <= limit <= self.start:
            raise ValueError(
                f"start={self.start}: the run ends at {self.unit} {limit}, so this phase would "
                "never begin; choose a start below it"
            )

    def steps(self, trainer: "Trainer") -> tuple[int, float]:
        """Its first optimizer step and the one after its last, which may be infinity.

        Ask once training has begun: the data loaders must be there.

        Raises:
            ValueError: a fraction or an epoch, and the training loader has no length.
        """
        first = self._to_steps("start", self.start, trainer)
        return first, math.inf if self.end is None else self._to_steps("end", self.end, trainer)

    def _to_steps(self, name: str, moment: float, trainer: "Trainer") -> int:
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
                f"optimizer step of this moment is unknown; set {remedy}"
            )
        return round(steps)
