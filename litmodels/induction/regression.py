"""The mixed target on vectors, learned by an ordinary two-layer transformer."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.litmodels.induction.logged_steps import is_logged
from lightning_plugins.nn.induction.transformer import Positions, VectorTransformer
from lightning_plugins.optimizers import configure_optimizers

Batch = tuple[Tensor, Tensor]


class InductionRegression(LightningModule):
    """Learns 4-gram and induction head on tokens of any dimension, with matrices for numbers.

    Batches are those of ``InductionMixtureDataModule`` with any ``dim``, ``W*`` and ``n``. Logged
    at the first step and at those at which the Trainer logs: ``train/loss``, half the mean squared
    error; its parts ``train/four_gram_loss`` and ``train/induction_loss``; and
    ``train/induction_explained``: the share of the induction part's variance that is explained, 1
    when it is learned. The same for ``val`` and ``test``.

    Args:
        dim: of a token; compared with the DataModule's.
        max_length: longest sequence.
        width: of the residual stream.
        layers: attention layers.
        heads: in each layer.
        positions: ``relative`` distances or ``learned`` places.
        mlp: follow each attention by a GELU network, as in GPT-2.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, or data of another dimension.
    """

    def __init__(
        self,
        dim: int = 4,
        max_length: int = 40,
        width: int = 32,
        layers: int = 2,
        heads: int = 2,
        positions: Positions = "relative",
        mlp: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = VectorTransformer(dim, 2, max_length, width, layers, heads, positions, mlp)
        self.dim = dim
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def setup(self, stage: str) -> None:
        """Refuse data of another dimension."""
        datamodule = getattr(self.trainer, "datamodule", None)
        dim = getattr(datamodule, "dim", self.dim)
        if dim != self.dim:
            raise ValueError(
                f"dim={self.dim}: {type(datamodule).__name__} has {dim}; set the model's to {dim}"
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """The two parts ``(batch, 2, dim)`` of tokens ``(batch, length, dim)``."""
        return self.network(tokens)

    def loss(self, batch: Batch) -> Tensor:
        """Half the squared error, summed over parts and dimensions and averaged over the batch."""
        return self._losses(batch).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses = self._losses(batch)
        if is_logged(self.trainer):
            self._log_losses("train", losses.detach(), batch)
        return losses.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the validation part."""
        self._log_losses("val", self._losses(batch), batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the test part."""
        self._log_losses("test", self._losses(batch), batch)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _losses(self, batch: Batch) -> Tensor:
        tokens, target = batch
        return 0.5 * (self(tokens) - target).square().sum(dim=-1).mean(dim=0)

    def _log_losses(self, part: str, losses: Tensor, batch: Batch) -> None:
        nothing = 0.5 * batch[1][:, 1].square().sum(dim=-1).mean()
        values = {
            "loss": losses.sum(),
            "four_gram_loss": losses[0],
            "induction_loss": losses[1],
            "induction_explained": 1 - losses[1] / nothing,
        }
        for name, value in values.items():
            self.log(f"{part}/{name}", value, prog_bar=name == "loss", sync_dist=part != "train")
