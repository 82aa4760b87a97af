"""Regression with mixtures of experts, as trained or as a proof writes them down."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import MaxMetric

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


class MoERegressor(LightningModule):
    """Fits ``(inputs, targets)`` by squared error with a composition of mixture-of-experts layers.

    Inputs are ``(batch, in_features)``, targets ``(batch, out_features)``. With ``num_experts=1``
    it is a dense network.

    Logged: ``train/loss``, the squared error alone; ``train/balance``, ``train/z`` and
    ``train/reconstruction``, which are added to it where their coefficients are not 0, before these
    and summed over the mixtures; ``val/loss`` and ``val/max_error``, the largest absolute error;
    the same for ``test``.

    Source: Wang and E, arXiv 2505.24205, section 3. Low-dimensional experts with a reconstruction
    loss are the suggestion of its discussion, which it does not test.

    Args:
        in_features: of an input; compared with the DataModule's where it has one.
        out_features: of an output.
        depth: layers, dense ones included.
        num_experts: of each mixture.
        hidden_features: neurons in each hidden layer of an expert, the paper's m.
        top_k: experts an input.
        num_layers: linear layers of an expert.
        gate: ``linear``, ``affine``, ``mlp`` or ``cosine``.
        gate_features: hidden features of an ``mlp`` gate, dimensions of a ``cosine`` gate.
        gate_weighting: ``softmax_all`` or ``softmax_topk``.
        train_gate: False freezes the gates.
        arrangement: ``moe``, ``dense_moe`` or ``shared_routed`` (:class:`MoENetwork`).
        residual: layers with as many outputs as inputs add their input.
        state_features: between layers; None is ``in_features``.
        encoder_features: experts first map their tokens linearly to so many features.
        balance_coef: of the load-balancing loss.
        z_coef: of the router's z loss.
        reconstruction_coef: of the mean squared error with which the experts' encoders can be
            undone linearly.
        backend: how inputs get to their experts (:func:`lightning_plugins.nn.moe.dispatch`).
        optimizer: builds the optimizer from named parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range or a combination that cannot be trained.

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
                f"reconstruction_coef={reconstruction_coef}: experts have no encoder to "
                "reconstruct from; set encoder_features"
            )
        if reconstruction_coef and num_experts == 1:
            raise ValueError(
                f"reconstruction_coef={reconstruction_coef}: a single expert has no routing whose "
                "experts are reconstructed from; set num_experts to at least 2"
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
        # Not left out, as by default: a model that has diverged would be the best.
        self.val_max_error = MaxMetric(nan_strategy=math.inf)
        self.test_max_error = MaxMetric(nan_strategy=math.inf)
        if not reconstruction_coef:
            for experts in self.network.modules():
                if isinstance(experts, Experts) and experts.decoder is not None:
                    experts.decoder.requires_grad_(False)  # nothing would give it a gradient

    @classmethod
    def constructed(
        cls,
        target: Target,
        hidden_features: int,
        gate: RouteBy | None = None,
        charts: int = 4,
        **arguments: Any,
    ) -> "MoERegressor":
        """A model with the weights that the paper's proofs describe; its gates are frozen.

        For separable targets on cubes it is :func:`construct_on_cube`, for ``SineCosine`` on the
        unit circle :func:`construct_on_circle`, both of ``lightning_plugins.nn.moe``.

        Args:
            target: what to represent.
            hidden_features: neurons of an expert, the theorems' m.
            gate: on cubes ``affine``, the default, or ``linear``, with a dense layer before each
                mixture; on the circle ``linear``.
            charts: arcs of the circle.
            arguments: ``optimizer``, ``lr_scheduler`` and ``balance_coef``, to train it further.

        Raises:
            ValueError: a target that no construction covers, or fewer neurons than it needs.
        """
        if isinstance(target, SeparablePieces):
            network = construct_on_cube(target, hidden_features, gate or "affine")
        elif isinstance(target, SineCosine):
            if gate not in (None, "linear"):
                raise ValueError(f"gate={gate!r}: the arcs of a circle need gate='linear'")
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
        """Outputs ``(batch, out_features)`` of inputs ``(batch, in_features)``."""
        return self.network(inputs)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error, without what training adds."""
        return mse_loss(self(inputs), targets)

    def routings(self, batch: Batch) -> list[Routing]:
        """Where the inputs of a batch went, one a layer with a gate; ``RoutingStats`` asks."""
        return [step.routing for step in self.network.mix(batch[0])[1]]

    def setup(self, stage: str) -> None:
        """Refuse data of another shape."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for name in ("in_features", "out_features"):
            own, given = getattr(self, name), getattr(datamodule, name, None)
            if given is not None and given != own:
                raise ValueError(
                    f"{name}={own}: {type(datamodule).__name__} has {given}; set the model's "
                    f"{name} to {given}"
                )

    def objective(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What training minimizes, and its terms by name before their coefficients."""
        outputs, steps = self.network.mix(inputs)
        terms = {"loss": mse_loss(outputs, targets)}
        total = terms["loss"]
        for name, coefficient in self._coefficients.items():
            if coefficient and steps:
                terms[name] = torch.stack([_added_term(name, step) for step in steps]).sum()
                total = total + coefficient * terms[name]
        return total, terms

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """What training minimizes, on a batch."""
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
        """Outputs ``(batch, out_features)`` of inputs, with or without targets."""
        return self(batch if isinstance(batch, Tensor) else batch[0])

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _evaluate(self, stage: str, max_error: MaxMetric, batch: Batch) -> None:
        inputs, targets = batch
        errors = self(inputs) - targets
        max_error.update(errors.abs().max())
        self.log(f"{stage}/loss", errors.square().mean(), sync_dist=True, prog_bar=True)
        self.log(f"{stage}/max_error", max_error)


def _added_term(name: str, step: RoutedStep) -> Tensor:
    if name == "balance":
        return load_balancing_loss(step.routing)
    if name == "z":
        return router_z_loss(step.routing)
    return step.layer.reconstruction_error(step.tokens, step.routing)
