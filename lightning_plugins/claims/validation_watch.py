"""A logged value at every validation of a run."""

from lightning.pytorch import Callback, LightningModule, Trainer


class ValidationWatch(Callback):
    """Keeps a metric and the optimizer step at the end of each validation.

    Args:
        metric: a logged name, such as ``val/loss``.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.steps: list[int] = []
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the value, but not that of the sanity check."""
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            self.values.append(float(trainer.callback_metrics[self.metric]))
