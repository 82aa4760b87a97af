"""Regression with trained or constructed mixtures of experts."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import MaxMetric

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.nn.moe.constructions import (
    RouteBy,
    SeparablePieces,
    construct_on_circle,
    construct_on_cube,
)
from lightning_plugins.nn.moe.dispatch import Backend
from lightning_plugins.nn.moe.experts import Experts
from lightning_plugins.nn.moe.network import Arrangement, MoENetwork, RoutedStep
from lightning_plugins.nn.moe.routing import GateName, GateWeighting, Routing
from lightning_plugins.nn.moe.routing_statistics import load_balancing_loss, router_z_loss
from lightning_plugins.nn.moe.targets import SineCosine, Target
from lightning_plugins.optimizers import configure_optimizers

Batch = tuple[Tensor, Tensor]


class MoERegressor(CheckedLoading, LightningModule):
    """Fits ``(inputs, targets)`` by squared error with a composition of mixture-of-experts layers.

    Inputs are ``(batch, in_features)``, targets ``(batch, out_features)``. With ``num_experts=1``
    the network is dense.

    Logged:

    * ``train/loss``, the squared error alone;
    * ``train/balance``, ``train/z`` and ``train/reconstruction``: the auxiliary losses with a
      nonzero coefficient, summed over the mixtures and without the coefficient;
    * ``val/loss`` and ``val/max_error``, the largest absolute error; the same for ``test``.

    Source: Wang and E, arXiv 2505.24205, section 3. The discussion of the paper suggests
    low-dimensional experts with a reconstruction loss, but does not test them.

    Args:
        in_features: Features of an input; must match the DataModule's.
        out_features: Features of an output; must match the DataModule's.
        depth: Number of layers, including dense layers.
        num_experts: Experts per mixture.
        hidden_features: Neurons in each hidden layer of an expert, m in the paper.
        top_k: Experts per input.
        num_layers: Linear layers of an expert.
        gate: ``linear``, ``affine``, ``mlp`` or ``cosine``.
        gate_features: Hidden features of an ``mlp`` gate, dimension of a ``cosine`` gate.
        gate_weighting: ``softmax_all`` or ``softmax_topk``.
        train_gate: False freezes the gates.
        arrangement: ``moe``, ``dense_moe`` or ``shared_routed`` (:class:`MoENetwork`).
        residual: Add the input in every layer with as many outputs as inputs.
        state_features: Features between layers; None means ``in_features``.
        encoder_features: Experts first map their tokens linearly to this many features.
        balance_coef: Coefficient of the load-balancing loss.
        z_coef: Coefficient of the router's z loss.
        reconstruction_coef: Coefficient of the mean squared error of inputs decoded linearly from
            the experts' encoders.
        backend: Method that sends inputs to their experts
            (:func:`lightning_plugins.nn.moe.dispatch`).
        optimizer: Builds the optimizer from named parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, or the combination cannot be trained.

    Example::

        model = MoERegressor(16, num_experts=4, hidden_features=10, top_k=2)
        Trainer(max_steps=3000).fit(model, datamodule=ManifoldDataModule())
    """

    def __init__(
        self,
        in_features: int = 16,
        out_features: int = 1,
        depth: int = 1,
        num_experts: int = 4,
        hidden_features: int = 10,
        top_k: int = 1,
        num_layers: int = 2,
        gate: GateName = "linear",
        gate_features: int = 32,
        gate_weighting: GateWeighting = "softmax_all",
        train_gate: bool = True,
        arrangement: Arrangement = "moe",
        residual: bool = False,
        state_features: int | None = None,
        encoder_features: int | None = None,
        balance_coef: float = 1e-3,
        z_coef: float = 0.0,
        reconstruction_coef: float = 0.0,
        backend: Backend = "auto",
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=5e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self._coefficients = {
            "balance": balance_coef,
            "z": z_coef,
            "reconstruction": reconstruction_coef,
        }
        for name, coefficient in self._coefficients.items():
            if not coefficient >= 0:
                raise ValueError(f"{name}_coef={coefficient}: expected 0 or more")
        if reconstruction_coef and encoder_features is None:
            raise ValueError(
                f"reconstruction_coef={reconstruction_coef}: requires experts with an encoder; set "
                "encoder_features"
            )
        if reconstruction_coef and num_experts == 1:
            raise ValueError(
                f"reconstruction_coef={reconstruction_coef}: requires routed experts; set "
                "num_experts to at least 2"
            )
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = MoENetwork(
            in_features,
            out_features,
            depth,
            num_experts,
            hidden_features,
            state_features=state_features,
            arrangement=arrangement,
            residual=residual,
            top_k=top_k,
            num_layers=num_layers,
            gate=gate,
            gate_features=gate_features,
            gate_weighting=gate_weighting,
            train_gate=train_gate,
            encoder_features=encoder_features,
            backend=backend,
        )
        self.in_features = in_features
        self.out_features = out_features
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        # The default ignores NaN, so that a diverged model would have the smallest error.
        self.val_max_error = MaxMetric(nan_strategy=math.inf)
        self.test_max_error = MaxMetric(nan_strategy=math.inf)
        if not reconstruction_coef:
            for experts in self.network.modules():
                if isinstance(experts, Experts) and experts.decoder is not None:
                    experts.decoder.requires_grad_(False)  # it would never get a gradient

    @classmethod
    def constructed(
        cls,
        target: Target,
        hidden_features: int,
        gate: RouteBy | None = None,
        charts: int = 4,
        **arguments: Any,
    ) -> "MoERegressor":
        """Build a model with the weights of the paper's proofs and with frozen gates.

        Separable targets on cubes use :func:`construct_on_cube`, ``SineCosine`` on the unit circle
        uses :func:`construct_on_circle`, both in ``lightning_plugins.nn.moe``.

        Args:
            target: Function to represent.
            hidden_features: Neurons per expert, m in the theorems.
            gate: On cubes ``affine``, the default, or ``linear``, with a dense layer before each
                mixture; on the circle ``linear``.
            charts: Number of arcs on the circle.
            arguments: Arguments for further training: ``optimizer``, ``lr_scheduler`` and
                ``balance_coef``.

        Raises:
            ValueError: No construction covers the target, or there are too few neurons.
        """
        if isinstance(target, SeparablePieces):
            network = construct_on_cube(target, hidden_features, gate or "affine")
        elif isinstance(target, SineCosine):
            if gate not in (None, "linear"):
                raise ValueError(f"gate={gate!r}: the arcs of a circle require gate='linear'")
            network = construct_on_circle(target, hidden_features, charts)
        else:
            raise ValueError(
                f"target={type(target).__name__}: constructions cover separable pieces on a cube, "
                "with a method piece(axis, index, z) as Bumps has, and SineCosine on the circle"
            )
        model = cls(**network.settings, **arguments)
        model.network.load_state_dict(network.state_dict())
        return model

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs ``(batch, out_features)`` of inputs ``(batch, in_features)``."""
        return self.network(inputs)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean squared error without auxiliary losses."""
        return mse_loss(self(inputs), targets)

    def routings(self, batch: Batch) -> list[Routing]:
        """Return the routing of a batch in each layer with a gate, for ``RoutingStats``."""
        return [step.routing for step in self.network.mix(batch[0])[1]]

    def setup(self, stage: str) -> None:
        """Refuse data with another number of features."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for name in ("in_features", "out_features"):
            own, given = getattr(self, name), getattr(datamodule, name, None)
            if given is not None and given != own:
                raise ValueError(
                    f"{name}={own}: {type(datamodule).__name__} has {name}={given}; set the "
                    f"model's {name} to {given}"
                )

    def objective(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the training loss, and its terms by name without their coefficients."""
        outputs, steps = self.network.mix(inputs)
        terms = {"loss": mse_loss(outputs, targets)}
        total = terms["loss"]
        for name, coefficient in self._coefficients.items():
            if coefficient and steps:
                terms[name] = torch.stack([_auxiliary_loss(name, step) for step in steps]).sum()
                total = total + coefficient * terms[name]
        return total, terms

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the training loss of a batch."""
        total, terms = self.objective(*batch)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, prog_bar=True)
        return total

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the errors over the validation points."""
        self._evaluate("val", self.val_max_error, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the errors over the test points."""
        self._evaluate("test", self.test_max_error, batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Compute outputs ``(batch, out_features)`` for inputs with or without targets."""
        return self(batch if isinstance(batch, Tensor) else batch[0])

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and its schedule with the matching interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _evaluate(self, stage: str, max_error: MaxMetric, batch: Batch) -> None:
        inputs, targets = batch
        errors = self(inputs) - targets
        max_error.update(errors.abs().max())
        self.log(f"{stage}/loss", errors.square().mean(), sync_dist=True, prog_bar=True)
        self.log(f"{stage}/max_error", max_error)


def _auxiliary_loss(name: str, step: RoutedStep) -> Tensor:
    if name == "balance":
        return load_balancing_loss(step.routing)
    if name == "z":
        return router_z_loss(step.routing)
    return step.layer.reconstruction_error(step.tokens, step.routing)
