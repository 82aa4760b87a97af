"""The mixed 4-gram and induction target, learned by six parameters or by a transformer."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.litmodels.induction.base import is_logged
from lightning_plugins.nn.induction.mixture import (
    FIRST_LAYER,
    SECOND_LAYER,
    MixtureDynamics,
    MixtureTransformer,
)
from lightning_plugins.nn.induction.transformer import Positions, VectorTransformer
from lightning_plugins.optimizers import configure_optimizers

Batch = tuple[Tensor, Tensor]
Stage = Literal["first_layer", "second_layer", "joint"]
_TRAINED = {
    "first_layer": FIRST_LAYER,
    "second_layer": SECOND_LAYER,
    "joint": (*FIRST_LAYER, *SECOND_LAYER),
}


class InductionMixture(LightningModule):
    """Learns a 4-gram (lazy) and an induction head (rich) with six numbers.

    Batches are those of ``InductionMixtureDataModule`` with ``dim=1, n=2``. Logged at the first
    step and at those at which the Trainer logs, with the values before the step: ``train/loss``,
    half the mean squared error, and its two parts ``train/four_gram_loss`` and
    ``train/induction_loss``; ``parameters/p1`` and so on for all six; ``train/match``, which is
    ``k² w1 / w*²``: what is identified of the induction head, 1 when it is learned. The same losses
    for ``val`` and ``test``.

    Args:
        stage: which layer is trained. ``second_layer`` has the first one at its limit, the token
            before; ``first_layer`` leaves the second one at its initial values; ``joint`` trains
            all six numbers at once. For the stages one after the other, load the checkpoint of
            ``first_layer`` with ``stage="second_layer"``.
        sigma_init: what every trained number starts from.
        optimizer: builds the optimizer from the parameters. Plain gradient descent is what the
            reference is about.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, or data of vectors or longer matches.

    Example::

        model = InductionMixture(optimizer=partial(torch.optim.SGD, lr=0.5))
        trainer = Trainer(max_steps=5000, callbacks=[PhaseDetector()])
        trainer.fit(model, datamodule=InductionMixtureDataModule(length=40))
    """

    def __init__(
        self,
        stage: Stage = "second_layer",
        sigma_init: float = 0.01,
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=0.5),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if stage not in _TRAINED:
            raise ValueError(f"stage={stage!r}: expected one of {', '.join(map(repr, _TRAINED))}")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = MixtureTransformer(sigma_init)
        if stage == "second_layer":
            self.network.idealize_first_layer()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = name in _TRAINED[stage]
        self.stage = stage
        self.sigma_init = sigma_init
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def setup(self, stage: str) -> None:
        """Refuse data that six numbers cannot learn."""
        for name, expected in {"dim": 1, "n": 2}.items():
            found = self._of_data(name, expected)
            if found != expected:
                raise ValueError(
                    f"{name}={found}: InductionMixture is for {name}={expected}; take "
                    "InductionRegression for others"
                )

    def forward(self, tokens: Tensor) -> Tensor:
        """The two parts ``(batch, 2, 1)`` of tokens ``(batch, length, 1)``."""
        return torch.stack(self.network(tokens[..., 0]), dim=1)[..., None]

    def loss(self, batch: Batch) -> Tensor:
        """Half the squared error, summed over the two parts and averaged over the batch."""
        return self._losses(batch).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        losses = self._losses(batch)
        if is_logged(self.trainer):
            self._log_losses("train", losses.detach())
            numbers = {name: value.detach() for name, value in self.network.named_parameters()}
            self.log_dict({f"parameters/{name}": value for name, value in numbers.items()})
            if (w_star := self._of_data("w_star", None)) is not None:
                self.log("train/match", numbers["k"] ** 2 * numbers["w1"] / w_star**2)
        return losses.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the validation part."""
        self._log_losses("val", self._losses(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the losses over the test part."""
        self._log_losses("test", self._losses(batch))

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def phase_reference(self, steps: Sequence[int]) -> Mapping[str, Sequence[float]] | None:
        """What the gradient flow predicts for the values logged at ``steps``, counted from 1.

        Asked for by ``PhaseDetector``. None where there is no prediction: for other stages, for
        optimizers other than gradient descent at a constant rate, or for other data.

        Raises:
            ValueError: ``w*`` or ``sigma_init`` outside the range of the closed form.
        """
        rate = self._rate_of_plain_descent()
        length, alpha, w_star = (
            self._of_data(name, None) for name in ("length", "alpha", "w_star")
        )
        if self.stage != "second_layer" or rate is None or None in (length, alpha, w_star):
            return None
        dynamics = MixtureDynamics(length, alpha, w_star)
        flow = dynamics.solve([rate * (step - 1) for step in steps], self.sigma_init)
        return {
            "train/loss": flow.four_gram_loss + flow.induction_loss,
            "train/four_gram_loss": flow.four_gram_loss,
            "train/induction_loss": flow.induction_loss,
            "train/match": flow.k**2 / w_star**2,
            **{f"parameters/{name}": getattr(flow, name) for name in SECOND_LAYER},
        }

    def _losses(self, batch: Batch) -> Tensor:
        """Of the 4-gram part and the induction part, ``(2,)``."""
        tokens, target = batch
        return 0.5 * (self(tokens) - target).square().sum(dim=-1).mean(dim=0)

    def _log_losses(self, part: str, losses: Tensor) -> None:
        four_gram_loss, induction_loss = losses
        values = {"four_gram_loss": four_gram_loss, "induction_loss": induction_loss}
        self.log(f"{part}/loss", losses.sum(), prog_bar=True, sync_dist=part != "train")
        for name, value in values.items():
            self.log(f"{part}/{name}", value, sync_dist=part != "train")

    def _rate_of_plain_descent(self) -> float | None:
        optimizer = self.trainer.optimizers[0]
        group = optimizer.param_groups[0]
        plain = type(optimizer) is torch.optim.SGD and not any(
            group[name] for name in ("momentum", "weight_decay", "maximize")
        )
        return group["lr"] if plain and not self.trainer.lr_scheduler_configs else None

    def _of_data(self, name: str, default: Any) -> Any:
        return getattr(getattr(self.trainer, "datamodule", None), name, default)


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
