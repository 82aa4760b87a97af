"""The Trainer's loops: steps, accumulation windows, logging, and the end of a run.

- ``FitLoop._should_accumulate``: whether a batch ends an accumulation window.
- ``_TrainingEpochLoop.advance``: called for each batch; it begins with a collective call.
- ``Trainer._results``: names of logged values in errors. Without it, errors do not have them.
- ``_CallbackConnector._attach_model_logging_functions``: assigns ``log`` to each callback before
  data is prepared. Without it, callbacks refuse a Trainer in ``setup``, which comes later.
- ``Trainer._signal_connector``: ends a run as after a SIGTERM. Without it, ``should_stop`` is set.
"""

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer


def steps_the_optimizer(trainer: Trainer) -> bool:
    """Return whether the current batch ends an accumulation window."""
    return not trainer.fit_loop._should_accumulate()


def logs_at_this_step(trainer: Trainer) -> bool:
    """Return whether the Trainer logs the last optimizer step."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def optimizer_steps(trainer: Trainer) -> float:
    """Return the optimizer steps of the whole run; infinity if it has no known end.

    Unlike ``trainer.estimated_stepping_batches``, this supports loaders without a length, for which
    the estimate is -1, and an accumulation factor that changes between epochs. Both create the
    loaders if they do not exist yet.
    """
    estimated = trainer.estimated_stepping_batches
    if estimated < 0:
        return math.inf
    if trainer.max_epochs == -1 or _accumulation_scheduler(trainer) is None:
        return estimated
    steps = steps_of_epochs(trainer, trainer.max_epochs or 0)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def steps_of_epochs(trainer: Trainer, epochs: float) -> float:
    """Return the optimizer steps of the first ``epochs``; infinity for a loader without a length.

    The data loaders must exist.
    """
    batches = trainer.num_training_batches
    if math.isinf(batches):
        return math.inf if epochs else 0
    scheduler = _accumulation_scheduler(trainer)
    if scheduler is None:
        return epochs * math.ceil(batches / trainer.accumulate_grad_batches)
    whole = int(epochs)
    *steps, last = (
        math.ceil(batches / scheduler.get_accumulate_grad_batches(epoch))
        for epoch in range(whole + 1)
    )
    return sum(steps) + (epochs - whole) * last


def _accumulation_scheduler(trainer: Trainer) -> Any:
    """Return the run's ``GradientAccumulationScheduler``, of lightning or pytorch_lightning."""
    found = (c for c in callbacks_of(trainer) if hasattr(c, "get_accumulate_grad_batches"))
    return next(found, None)


def largest_accumulation_factor(trainer: Trainer) -> int:
    """Return the largest accumulation factor of all epochs."""
    scheduler = _accumulation_scheduler(trainer)
    if scheduler is None:
        return trainer.accumulate_grad_batches
    return max(scheduler.scheduling.values())


def before_each_batch(trainer: Trainer, act: Callable[[], None]) -> Callable[[], None]:
    """Call ``act`` before each training batch, and before Lightning's own collective call for it.

    Returns:
        A function that stops the calls; it can be called twice.
    """
    loop: Any = trainer.fit_loop.epoch_loop

    def advance(data_fetcher: Any) -> None:
        act()
        type(loop).advance(loop, data_fetcher)

    loop.advance = advance
    return lambda: loop.__dict__.pop("advance", None)


def run_validation(trainer: Trainer) -> None:
    """Run a validation in ``on_train_end``, as within training."""
    trainer.validating = True
    try:
        trainer.fit_loop.epoch_loop.val_loop.run()
    finally:
        trainer.training = True


def request_stop(trainer: Trainer) -> None:
    """End training after the current batch, on all ranks, as after a SIGTERM.

    The Trainer raises a ``SIGTERMException``. Without the private interface, a public
    ``should_stop`` ends the run, after the validation and the hooks of an ordinary end.
    """
    connector = getattr(trainer, "_signal_connector", None)
    if connector is None:
        trainer.should_stop = True
    else:
        connector.received_sigterm = True


def names_of_logged_values(trainer: Trainer) -> list[str]:
    """Return the names that this process has logged so far in the current loop."""
    results = getattr(trainer, "_results", None)
    logged = {metric.meta.name for metric in (results or {}).values()}
    return sorted(logged)


def fitting_trainer(log: Any) -> Trainer | None:
    """The Trainer whose module has the method ``log``, if it is about to fit."""
    trainer = getattr(getattr(log, "__self__", None), "_trainer", None)
    return trainer if getattr(getattr(trainer, "state", None), "fn", None) == "fit" else None


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the Trainer's callbacks, an attribute that type checkers do not find."""
    return trainer.callbacks  # type: ignore[attr-defined]
