"""In-context learning of Markov chains by small transformers."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.induction.base import is_logged
from lightning_plugins.nn.induction.ngrams import in_context_ngram, ngram_name
from lightning_plugins.nn.induction.transformer import Positions, TokenTransformer
from lightning_plugins.optimizers import configure_optimizers


class InContextMarkov(LightningModule):
    """Learns to predict chains that it has never seen, first by frequencies, then by transitions.

    Batches are those of ``MarkovChainDataModule``. Logged at the first step and at those at which
    the Trainer logs: ``train/loss`` in nats a token; the same for the baselines that count in the
    context, ``train/loss_uniform``, ``train/loss_unigram``, ``train/loss_bigram`` and so on up to
    the chain's order, the last of which is Bayes-optimal for chains of uniform rows;
    ``train/kl_unigram`` and so on, the mean divergence ``KL(baseline ‖ model)``; and
    ``train/progress``: how far the loss came from the unigram's (0) to the last baseline's (1). For
    ``val`` and ``test`` the loss and the divergences.

    Args:
        num_states: tokens; compared with the DataModule's.
        max_length: longest sequence.
        order: of the chains; compared with the DataModule's.
        dim: of the residual stream.
        layers: attention layers.
        heads: in each layer.
        positions: ``relative`` distances or ``learned`` places.
        mlp: follow each attention by a GELU network, as in GPT-2.
        optimizer: builds the optimizer from the parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, or data of another kind of chain.

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
        super().__init__()
        if order < 1:
            raise ValueError(f"order={order}: expected at least 1")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = TokenTransformer(num_states, max_length, dim, layers, heads, positions, mlp)
        self.num_states = num_states
        self.order = order
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def setup(self, stage: str) -> None:
        """Refuse chains of another kind."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for name in ("num_states", "order"):
            found = getattr(datamodule, name, getattr(self, name))
            if found != getattr(self, name):
                raise ValueError(
                    f"{name}={getattr(self, name)}: {type(datamodule).__name__} has {found}; set "
                    f"the model's {name} to {found}"
                )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, length, num_states)`` of tokens ``(batch, length)``."""
        return self.network(tokens)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy in nats over all tokens but the first."""
        return _cross_entropy(self(tokens[:, :-1]), tokens[:, 1:])

    def training_step(self, tokens: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        logits = self(tokens[:, :-1])
        loss = _cross_entropy(logits, tokens[:, 1:])
        if is_logged(self.trainer):
            self.log("train/loss", loss, prog_bar=True)
            self.log_dict(self._compared("train", logits.detach(), tokens))
        return loss

    def validation_step(self, tokens: Tensor, batch_idx: int) -> None:
        """Log loss and divergences over the validation part."""
        self._evaluate("val", tokens)

    def test_step(self, tokens: Tensor, batch_idx: int) -> None:
        """Log loss and divergences over the test part."""
        self._evaluate("test", tokens)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _evaluate(self, part: str, tokens: Tensor) -> None:
        logits = self(tokens[:, :-1])
        loss = _cross_entropy(logits, tokens[:, 1:])
        self.log(f"{part}/loss", loss, prog_bar=True, sync_dist=True)
        self.log_dict(self._compared(part, logits, tokens), sync_dist=True)

    def _compared(self, part: str, logits: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        model = logits.log_softmax(dim=-1)
        losses = {"uniform": torch.tensor(math.log(self.num_states))}
        divergences = {}
        for order in range(self.order + 1):
            baseline = in_context_ngram(inputs, order, self.num_states)
            name = ngram_name(order)
            losses[name] = _cross_entropy(baseline, targets)
            divergences[name] = (baseline.exp() * (baseline - model)).sum(dim=-1).mean()
        loss, unigram, best = _cross_entropy(logits, targets), losses["unigram"], losses[name]
        return {
            **{f"{part}/loss_{name}": value for name, value in losses.items()},
            **{f"{part}/kl_{name}": value for name, value in divergences.items()},
            f"{part}/progress": (unigram - loss) / (unigram - best),
        }


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten())
