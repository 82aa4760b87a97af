"""The mixed 4-gram and induction target, learned by six parameters or by a transformer."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.litmodels.induction.base import InductionModule
from lightning_plugins.nn.induction.mixture import (
    FIRST_LAYER,
    SECOND_LAYER,
    MixtureDynamics,
    MixtureTransformer,
)
from lightning_plugins.nn.induction.transformer import Positions, VectorTransformer

Batch = tuple[Tensor, Tensor]
Stage = Literal["first_layer", "second_layer", "joint"]
_TRAINED = {
    "first_layer": FIRST_LAYER,
    "second_layer": SECOND_LAYER,
    "joint": (*FIRST_LAYER, *SECOND_LAYER),
}


class InductionMixture(InductionModule):
    """Learns a 4-gram (lazy) and an induction head (rich) with six parameters.

    Batches come from ``InductionMixtureDataModule`` with ``dim=1, n=2``. Logged at the first step
    and at the Trainer's logging steps, with the values before the step:

    * ``train/loss``, half the mean squared error, and its two parts ``train/four_gram_loss`` and
      ``train/induction_loss``;
    * ``parameters/p1`` and the other five parameters;
    * ``train/match``, equal to ``k² w1 / w*²``: the learned part of the induction head, 1 at the
      optimum.

    The losses are also logged for ``val`` and ``test``.

    Args:
        stage: Trained layer. ``second_layer`` fixes the first layer at its limit, the previous
            token; ``first_layer`` fixes the second layer at its initial values; ``joint`` trains
            all six parameters. To train the stages one after the other, load the checkpoint of
            ``first_layer`` with ``stage="second_layer"``.
        sigma_init: Initial value of every trained parameter.
        optimizer: Builds the optimizer from the parameters. The reference dynamics require plain
            gradient descent.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, or the data has vectors or longer matches.

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
        super().__init__(optimizer, lr_scheduler)
        if stage not in _TRAINED:
            raise ValueError(f"stage={stage!r}: expected one of {', '.join(map(repr, _TRAINED))}")
        self.network = MixtureTransformer(sigma_init)
        if stage == "second_layer":
            self.network.idealize_first_layer()
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = name in _TRAINED[stage]
        self.stage = stage
        self.sigma_init = sigma_init

    def setup(self, stage: str) -> None:
        """Refuse data that six parameters cannot learn."""
        for name, expected in {"dim": 1, "n": 2}.items():
            found = self.data_attribute(name, expected)
            if found != expected:
                raise ValueError(
                    f"{name}={found}: InductionMixture requires {name}={expected}; use "
                    "InductionRegression for other values"
                )

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the two parts ``(batch, 2, 1)`` of tokens ``(batch, length, 1)``."""
        return torch.stack(self.network(tokens[..., 0]), dim=1)[..., None]

    def outputs(self, batch: Batch) -> Tensor:
        """Predict the 4-gram part and the induction part."""
        return self(batch[0])

    def objective(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute half the squared error, summed over the parts and averaged over the batch."""
        return _losses_of_parts(outputs, batch).sum()

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss and its two parts."""
        losses = _losses_of_parts(outputs, batch)
        return {"loss": losses.sum(), "four_gram_loss": losses[0], "induction_loss": losses[1]}

    def training_state(self) -> dict[str, Tensor]:
        """Return the six parameters, and the match with ``w*`` if the data has it."""
        parameters = {name: value.detach() for name, value in self.network.named_parameters()}
        state = {f"parameters/{name}": value for name, value in parameters.items()}
        if (w_star := self.data_attribute("w_star", None)) is not None:
            state["train/match"] = parameters["k"] ** 2 * parameters["w1"] / w_star**2
        return state

    def phase_reference(self, steps: Sequence[int]) -> Mapping[str, Sequence[float]] | None:
        """Predict the values logged at ``steps``, counted from 1, with the gradient flow.

        ``PhaseDetector`` calls this method.

        Returns:
            Values by logged name. None if there is no prediction: for other stages, for optimizers
            other than gradient descent at a constant learning rate, and for other data.

        Raises:
            ValueError: ``w*`` or ``sigma_init`` is outside the range of the closed form.
        """
        rate = self._rate_of_plain_descent()
        length, alpha, w_star = (
            self.data_attribute(name, None) for name in ("length", "alpha", "w_star")
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

    def _rate_of_plain_descent(self) -> float | None:
        optimizer = self.trainer.optimizers[0]
        group = optimizer.param_groups[0]
        plain = type(optimizer) is torch.optim.SGD and not any(
            group[name] for name in ("momentum", "weight_decay", "maximize")
        )
        return group["lr"] if plain and not self.trainer.lr_scheduler_configs else None


class InductionRegression(InductionModule):
    """Learns a 4-gram and an induction head on tokens of any dimension with a transformer.

    Batches come from ``InductionMixtureDataModule`` with any ``dim``, ``W*`` and ``n``. Logged at
    the first step and at the Trainer's logging steps:

    * ``train/loss``, half the mean squared error, and its two parts ``train/four_gram_loss`` and
      ``train/induction_loss``;
    * ``train/induction_explained``, the explained fraction of the induction part's variance, 1 at
      the optimum.

    The same values are logged for ``val`` and ``test``.

    Args:
        dim: Dimension of a token; must match the DataModule's.
        max_length: Longest sequence.
        width: Dimension of the residual stream.
        layers: Number of attention layers.
        heads: Heads per layer.
        positions: ``relative`` distances or ``learned`` positions.
        mlp: Add a GELU network after each attention layer, as in GPT-2.
        optimizer: Builds the optimizer from the parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, or the data has another dimension.
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
        super().__init__(optimizer, lr_scheduler)
        self.network = VectorTransformer(dim, 2, max_length, width, layers, heads, positions, mlp)
        self.dim = dim

    def setup(self, stage: str) -> None:
        """Refuse data of another dimension."""
        self.require_equal("dim")

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the two parts ``(batch, 2, dim)`` of tokens ``(batch, length, dim)``."""
        return self.network(tokens)

    def outputs(self, batch: Batch) -> Tensor:
        """Predict the 4-gram part and the induction part."""
        return self(batch[0])

    def objective(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute half the squared error, summed over parts and dimensions, averaged over batch."""
        return _losses_of_parts(outputs, batch).sum()

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss, its two parts, and the explained fraction of the induction part."""
        losses = _losses_of_parts(outputs, batch)
        unexplained = 0.5 * batch[1][:, 1].square().sum(dim=-1).mean()
        return {
            "loss": losses.sum(),
            "four_gram_loss": losses[0],
            "induction_loss": losses[1],
            "induction_explained": 1 - losses[1] / unexplained,
        }


def _losses_of_parts(outputs: Tensor, batch: Batch) -> Tensor:
    """Compute half the squared error of the 4-gram part and the induction part, ``(2,)``."""
    return 0.5 * (outputs - batch[1]).square().sum(dim=-1).mean(dim=0)
