"""At which steps the modules of this folder compute what they log."""

from lightning.pytorch import Trainer


def is_logged(trainer: Trainer) -> bool:
    """Whether the step in progress is the first one, or one that the Trainer logs."""
    step = trainer.global_step + 1
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step == 1 or (bool(every) and step % every == 0)
