"""The training loop that all induction models share."""

from abc import abstractmethod
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.optimizers import configure_optimizers


class InductionModule(CheckedLoading, LightningModule):
    """Trains a network that learns in context, and computes metrics only at logged steps.

    A subclass defines the outputs of the network for a batch, the loss, and the logged metrics. The
    metrics are logged as ``train/...`` at the first step and at the Trainer's logging steps, and as
    ``val/...`` and ``test/...`` over the evaluation parts.

    Args:
        optimizer: Builds the optimizer from the parameters.
        lr_scheduler: Builds the schedule from the optimizer.
    """

    def __init__(
        self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    @abstractmethod
    def outputs(self, batch: Any) -> Tensor:
        """Compute the outputs of the network that loss and metrics depend on."""

    @abstractmethod
    def objective(self, outputs: Tensor, batch: Any) -> Tensor:
        """Compute the loss that training minimizes."""

    @abstractmethod
    def metrics(self, outputs: Tensor, batch: Any) -> dict[str, Tensor]:
        """Compute the metrics of a batch, by name without the part; ``loss`` is one of them."""

    def training_state(self) -> dict[str, Tensor]:
        """Return further values to log at training steps, by full name."""
        return {}

    def loss(self, batch: Any) -> Tensor:
        """Compute the loss of a batch."""
        return self.objective(self.outputs(batch), batch)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log the metrics at logging steps."""
        outputs = self.outputs(batch)
        if is_logged(self.trainer):
            self._log_metrics("train", outputs.detach(), batch)
            self.log_dict(self.training_state())
        return self.objective(outputs, batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the metrics over the validation part."""
        self._log_metrics("val", self.outputs(batch), batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the metrics over the test part."""
        self._log_metrics("test", self.outputs(batch), batch)

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and its schedule with the matching interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def data_attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the DataModule, or ``default`` if it does not exist."""
        return getattr(getattr(self.trainer, "datamodule", None), name, default)

    def require_equal(self, *names: str) -> None:
        """Raise an error if an attribute of the DataModule differs from the model's.

        Raises:
            ValueError: An attribute differs.
        """
        for name in names:
            own = getattr(self, name)
            found = self.data_attribute(name, own)
            if found != own:
                datamodule = type(self.trainer.datamodule).__name__  # type: ignore[attr-defined]
                raise ValueError(
                    f"{name}={own}: {datamodule} has {name}={found}; set the model's {name} to "
                    f"{found}"
                )

    def _log_metrics(self, part: str, outputs: Tensor, batch: Any) -> None:
        for name, value in self.metrics(outputs, batch).items():
            self.log(f"{part}/{name}", value, prog_bar=name == "loss", sync_dist=part != "train")


def is_logged(trainer: Trainer) -> bool:
    """Whether the current step is the first one or one of the Trainer's logging steps."""
    step = trainer.global_step + 1
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return step == 1 or (bool(every) and step % every == 0)
