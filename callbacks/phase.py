"""A part of a training run, counted in optimizer steps, epochs or as a fraction."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
        if self.unit == "fraction" and endless:
            raise ValueError(
                f"start={self.start} is a fraction of a run without an end: set "
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
        """
        first = _to_steps(self.start, self.unit, trainer)
        return first, math.inf if self.end is None else _to_steps(self.end, self.unit, trainer)


def _to_steps(moment: float, unit: Unit, trainer: "Trainer") -> int:
    if unit == "step":
        return round(moment)
    if unit == "fraction":
        return round(moment * trainer.estimated_stepping_batches)
    steps_an_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
    return round(moment * steps_an_epoch)
