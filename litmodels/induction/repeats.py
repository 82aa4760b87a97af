"""Repeated random sequences: a task that requires an induction head."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.induction.base import InductionModule
from lightning_plugins.nn.induction.transformer import Positions, TokenTransformer

Batch = tuple[Tensor, Tensor]


class InContextRepeats(InductionModule):
    """A small language model on sequences that repeat with a random period.

    Batches come from ``RepeatedSequenceDataModule``. Training minimizes the loss over all tokens.
    Logged at the first step and at the Trainer's logging steps, in nats per token:

    * ``train/loss``;
    * ``train/first_loss`` over the first period, which no model can predict better than
      ``ln(vocab_size)``;
    * ``train/repeat_loss`` and ``train/repeat_accuracy`` over the repeated tokens without the first
      of them.

    The same values are logged for ``val`` and ``test``.

    Args:
        vocab_size: Number of different tokens; at least the DataModule's.
        max_length: Longest sequence.
        dim: Dimension of the residual stream.
        layers: Number of attention layers.
        heads: Heads per layer.
        positions: ``relative`` distances or ``learned`` positions.
        mlp: Add a GELU network after each attention layer, as in GPT-2.
        optimizer: Builds the optimizer from the parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, or the data has more tokens.

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
        super().__init__(optimizer, lr_scheduler)
        self.network = TokenTransformer(vocab_size, max_length, dim, layers, heads, positions, mlp)
        self.vocab_size = vocab_size

    def setup(self, stage: str) -> None:
        """Refuse data with more tokens than the network has."""
        if self.data_attribute("vocab_size", self.vocab_size) > self.vocab_size:
            self.require_equal("vocab_size")

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(batch, length, vocab_size)`` of tokens ``(batch, length)``."""
        return self.network(tokens)

    def outputs(self, batch: Batch) -> Tensor:
        """Compute the logits of all tokens except the first."""
        return self(batch[0][:, :-1])

    def objective(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy in nats over all tokens except the first."""
        return _token_losses(outputs, batch).mean()

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute losses and accuracy of the first period and of the repeats."""
        tokens, period = batch
        losses = _token_losses(outputs, batch)
        hits = (outputs.detach().argmax(dim=-1) == tokens[:, 1:]).float()
        position = torch.arange(1, losses.shape[1] + 1, device=losses.device)
        first, repeat = position < period[:, None], position > period[:, None]
        return {
            "loss": losses.mean(),
            "first_loss": losses[first].mean(),
            "repeat_loss": losses[repeat].mean(),
            "repeat_accuracy": hits[repeat].mean(),
        }


def _token_losses(logits: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(logits.transpose(1, 2), batch[0][:, 1:], reduction="none")
