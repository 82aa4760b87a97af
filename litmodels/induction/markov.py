"""In-context learning of Markov chains by small transformers."""

import math

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.induction.base import InductionModule
from lightning_plugins.nn.induction.ngrams import in_context_ngram, ngram_name
from lightning_plugins.nn.induction.transformer import Positions, TokenTransformer


class InContextMarkov(InductionModule):
    """Learns to predict unseen chains, first from frequencies and then from transitions.

    Batches come from ``MarkovChainDataModule``. Logged at the first step and at the Trainer's
    logging steps:

    * ``train/loss`` in nats per token;
    * ``train/loss_uniform``, ``train/loss_unigram``, ``train/loss_bigram`` and so on up to the
      chain's order: the losses of baselines that count in the context. The last one is
      Bayes-optimal for chains with uniform rows;
    * ``train/kl_unigram`` and so on: the mean divergence ``KL(baseline ‖ model)``;
    * ``train/progress``: position of the loss between the unigram's loss (0) and the last
      baseline's loss (1).

    The same values are logged for ``val`` and ``test``.

    Args:
        num_states: Number of different tokens; must match the DataModule's.
        max_length: Longest sequence.
        order: Order of the chains; must match the DataModule's.
        dim: Dimension of the residual stream.
        layers: Number of attention layers.
        heads: Heads per layer.
        positions: ``relative`` distances or ``learned`` positions.
        mlp: Add a GELU network after each attention layer, as in GPT-2.
        optimizer: Builds the optimizer from the parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, or the data has another kind of chain.

    Example::

        trainer = Trainer(max_steps=1000, log_every_n_steps=10)
        trainer.fit(InContextMarkov(), datamodule=MarkovChainDataModule())
    """

    def __init__(
        self,
        num_states: int = 3,
        max_length: int = 64,
        order: int = 1,
        dim: int = 32,
        layers: int = 2,
        heads: int = 1,
        positions: Positions = "relative",
        mlp: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.95)),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if order < 1:
            raise ValueError(f"order={order}: expected at least 1")
        self.network = TokenTransformer(num_states, max_length, dim, layers, heads, positions, mlp)
        self.num_states = num_states
        self.order = order

    def setup(self, stage: str) -> None:
        """Refuse data with another kind of chain."""
        self.require_equal("num_states", "order")

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(batch, length, num_states)`` of tokens ``(batch, length)``."""
        return self.network(tokens)

    def outputs(self, batch: Tensor) -> Tensor:
        """Compute the logits of all tokens except the first."""
        return self(batch[:, :-1])

    def objective(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """Compute the mean cross-entropy in nats over all tokens except the first."""
        return _cross_entropy(outputs, batch[:, 1:])

    def metrics(self, outputs: Tensor, batch: Tensor) -> dict[str, Tensor]:
        """Compute the loss and compare it with the baselines."""
        inputs, targets = batch[:, :-1], batch[:, 1:]
        model = outputs.log_softmax(dim=-1)
        losses = {"uniform": torch.tensor(math.log(self.num_states))}
        divergences = {}
        for order in range(self.order + 1):
            baseline = in_context_ngram(inputs, order, self.num_states)
            name = ngram_name(order)
            losses[name] = _cross_entropy(baseline, targets)
            divergences[name] = (baseline.exp() * (baseline - model)).sum(dim=-1).mean()
        loss, unigram, best = _cross_entropy(outputs, targets), losses["unigram"], losses[name]
        return {
            "loss": loss,
            **{f"loss_{name}": value for name, value in losses.items()},
            **{f"kl_{name}": value for name, value in divergences.items()},
            "progress": (unigram - loss) / (unigram - best),
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten())
