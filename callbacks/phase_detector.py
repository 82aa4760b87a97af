"""Detects the learning phases of a run: partial learning, plateau, emergence, convergence."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import logs_at_this_step
from lightning_plugins.callbacks.measured_curves import (
    MeasuredCurves,
    log_measurement,
    log_picture,
)
from lightning_plugins.nn.induction.phases import Phases, find_phases
from lightning_plugins.reports.drawing import Picture
from lightning_plugins.reports.run_pictures import phase_picture

_NAMES = {
    "partial learning": ("start", "partial_learning_end"),
    "plateau": ("partial_learning_end", "plateau_end"),
    "emergence": ("plateau_end", "convergence"),
    "convergence": ("convergence", "end"),
}


class PhaseDetector(MeasuredCurves):
    """Finds partial learning, plateau, emergence and convergence of a run, and draws them.

    Two logged metrics define the phases: the *lazy* loss, which is learned first, and the progress
    of the *rich* mechanism. Partial learning ends when the lazy loss falls to ``partial_share`` of
    its first value. The end of the plateau, the emergence and the convergence are the steps at
    which the progress reaches 0.1, 0.5 and 0.9. Steps between logged steps are interpolated, so set
    the Trainer's ``log_every_n_steps`` well below the length of the emergence. If the module also
    logs its first step, the lazy loss is compared with its value at that step.

    If the module has a method ``phase_reference(steps)``, it returns the values that a theory
    predicts (metric name -> one value per step, or None). The same rule then yields predicted
    phases, and both are drawn. :class:`~lightning_plugins.litmodels.InductionMixture` has this
    method.

    At the end of the run, logs the phases that were reached, in optimizer steps:
    ``phases/partial_learning_end``, ``phases/plateau_end``, ``phases/emergence`` and
    ``phases/convergence``, and the predictions with the prefix ``phases_predicted/``. The picture
    ``phases`` is sent to the loggers that accept pictures, or else written to the log folder. A
    resumed run has the complete curves.

    Args:
        lazy: The name of the logged loss that is learned first.
        progress: The name of a logged metric that rises from 0 to 1 as the rich mechanism is
            learned.
        drawn: The names of further logged metrics to draw.
        partial_share: The share of its first value at which the lazy loss ends partial learning.
        smoothing: The number of logged points in the running median of both metrics; odd.

    Raises:
        ValueError: An argument is outside its range.
        MisconfigurationException: The module does not log a metric of that name.

    Example::

        trainer = Trainer(log_every_n_steps=20, callbacks=[PhaseDetector()])
    """

    results = (*MeasuredCurves.results, "phases", "predicted")

    def __init__(
        self,
        lazy: str = "train/four_gram_loss",
        progress: str = "train/match",
        drawn: Sequence[str] = ("train/induction_loss",),
        partial_share: float = 0.1,
        smoothing: int = 5,
    ) -> None:
        if not 0 < partial_share < 1:
            raise ValueError(f"partial_share={partial_share}: expected a share in (0, 1)")
        if smoothing < 1 or smoothing % 2 == 0:
            raise ValueError(f"smoothing={smoothing}: expected an odd number of points")
        super().__init__()
        self.lazy = lazy
        self.progress = progress
        self.drawn = tuple(drawn)
        self.partial_share = partial_share
        self.smoothing = smoothing
        self.phases: Phases | None = None
        self.predicted: Phases | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the metrics that were logged at this step."""
        step = trainer.global_step
        if not (step == 1 or logs_at_this_step(trainer)) or self.steps[-1:] == [step]:
            return
        logged = trainer.callback_metrics
        names = (self.lazy, self.progress, *self.drawn)
        missing = [name for name in names if name not in logged]
        if missing and not logs_at_this_step(trainer):
            return  # many modules log nothing at the first step
        if missing:
            raise MisconfigurationException(
                f"PhaseDetector: {type(pl_module).__name__} does not log {', '.join(missing)} in "
                f"training; it logs {', '.join(sorted(logged)) or 'nothing'}"
            )
        self._append(step, {name: float(logged[name]) for name in names})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the phases, log them, and draw them."""
        if not self.steps:
            rank_zero_warn("PhaseDetector found no logged step: reduce log_every_n_steps")
            return
        lazy, progress = (
            running_median(self.values[name], self.smoothing) for name in (self.lazy, self.progress)
        )
        self.phases = self._found(lazy, progress)
        reference = self._reference(pl_module)
        self.predicted = None
        if reference and {self.lazy, self.progress} <= reference.keys():
            self.predicted = self._found(reference[self.lazy], reference[self.progress])
        found = _reached("phases", self.phases) | _reached("phases_predicted", self.predicted)
        log_measurement(trainer, found)
        rank_zero_info(f"phases, in optimizer steps: {self.run_summary(trainer)}")
        log_picture(trainer, "phases", lambda: self._picture(reference))

    def run_summary(self, trainer: Trainer) -> str | None:
        """Return the steps at which phases end, for the summary of the command line."""
        if self.phases is None:
            return None
        text = _listed(_reached("", self.phases)) or "none reached"
        return text + (
            f"; predicted: {_listed(_reached('', self.predicted))}" if self.predicted else ""
        )

    def _found(self, lazy: Sequence[float], progress: Sequence[float]) -> Phases:
        return find_phases(self.steps, lazy, progress, self.partial_share)

    def _reference(self, pl_module: LightningModule) -> Mapping[str, Sequence[float]]:
        method = getattr(pl_module, "phase_reference", None)
        if method is None:
            return {}
        try:
            return method(self.steps) or {}
        except (ImportError, ValueError) as error:
            rank_zero_warn(f"the predicted phases are missing: {error}")
            return {}

    def _picture(self, reference: Mapping[str, Sequence[float]]) -> Picture:
        assert self.phases is not None
        shown = {name: reference[name] for name in self.values if name in reference}
        bands = _bands(self.phases, self.steps[0], self.steps[-1])
        return phase_picture(self.steps, self.values, shown, bands)


def running_median(values: Sequence[float], width: int) -> list[float]:
    """Return the median of ``width`` points around each point; symmetric, fewer at the ends."""
    half = width // 2
    medians = []
    for place in range(len(values)):
        reach = min(half, place, len(values) - 1 - place)
        medians.append(statistics.median(values[place - reach : place + reach + 1]))
    return medians


def _reached(prefix: str, phases: Phases | None) -> dict[str, float]:
    if phases is None:
        return {}
    names = ("partial_learning_end", "plateau_end", "emergence", "convergence")
    moments = {f"{prefix}/{name}".lstrip("/"): getattr(phases, name) for name in names}
    return {name: moment for name, moment in moments.items() if not math.isnan(moment)}


def _listed(moments: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {moment:.0f}" for name, moment in moments.items())


def _bands(phases: Phases, start: float, end: float) -> dict[str, tuple[float, float]]:
    """Return label -> (start, end) of the phases that occurred in the expected order."""
    moments = {"start": start, "end": end, **vars(phases)}
    bands = {}
    for label, (first, last) in _NAMES.items():
        begin = moments[first]
        finish = end if math.isnan(moments[last]) else moments[last]
        if not math.isnan(begin) and finish > begin:
            bands[label] = (begin, finish)
    return bands
