"""Continuing random sequences that repeat: the task that only an induction head solves."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.induction.base import is_logged
from lightning_plugins.nn.induction.transformer import Positions, TokenTransformer
from lightning_plugins.optimizers import configure_optimizers

Batch = tuple[Tensor, Tensor]


class InContextRepeats(LightningModule):
    """A small language model on sequences that repeat with a random period.

    Batches are those of ``RepeatedSequenceDataModule``. The loss is over all tokens. Logged at the
    first step and at those at which the Trainer logs: ``train/loss``; ``train/first_loss``, over
    the first period, which nobody can predict below ``ln(vocab_size)``; ``train/repeat_loss`` and
    ``train/repeat_accuracy``, over what repeats, without its first token. In nats a token. The same
    for ``val`` and ``test``.

    Args:
        vocab_size: tokens; compared with the DataModule's.
        max_length: longest sequence.
        dim: of the residual stream.
        layers: attention layers.
        heads: in each layer.
        positions: ``relative`` distances or ``learned`` places.
        mlp: follow each attention by a GELU network, as in GPT-2.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, or data with more tokens.

    Example::

        trainer = Trainer(max_steps=1000, callbacks=[HeadScores(every_n_steps=20)])
        trainer.fit(InContextRepeats(), datamodule=RepeatedSequenceDataModule())
    """

    def __init__(
        self,
        vocab_size: int = 64,
        max_length: int = 48,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        positions: Positions = "relative",
        mlp: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = TokenTransformer(vocab_size, max_length, dim, layers, heads, positions, mlp)
        self.vocab_size = vocab_size
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def setup(self, stage: str) -> None:
        """Refuse data with tokens that the network does not know."""
        datamodule = getattr(self.trainer, "datamodule", None)
        vocab_size = getattr(datamodule, "vocab_size", self.vocab_size)
        if vocab_size > self.vocab_size:
            raise ValueError(
                f"vocab_size={self.vocab_size}: {type(datamodule).__name__} has {vocab_size} "
                f"tokens; set the model's vocab_size to {vocab_size} or more"
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, length, vocab_size)`` of tokens ``(batch, length)``."""
        return self.network(tokens)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over all tokens but the first."""
        return self._losses_and_hits(batch)[0].mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses, hits = self._losses_and_hits(batch)
        if is_logged(self.trainer):
            self._log_parts("train", batch, losses.detach(), hits)
        return losses.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the validation part."""
        self._log_parts("val", batch, *self._losses_and_hits(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the test part."""
        self._log_parts("test", batch, *self._losses_and_hits(batch))

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _losses_and_hits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tokens, _ = batch
        logits, targets = self(tokens[:, :-1]), tokens[:, 1:]
        losses = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return losses, (logits.detach().argmax(dim=-1) == targets).float()

    def _log_parts(self, part: str, batch: Batch, losses: Tensor, hits: Tensor) -> None:
        _, period = batch
        place = torch.arange(1, losses.shape[1] + 1, device=losses.device)
        first, repeat = place < period[:, None], place > period[:, None]
        values = {
            "loss": losses.mean(),
            "first_loss": losses[first].mean(),
            "repeat_loss": losses[repeat].mean(),
            "repeat_accuracy": hits[repeat].mean(),
        }
        for name, value in values.items():
            self.log(f"{part}/{name}", value, prog_bar=name == "loss", sync_dist=part != "train")
