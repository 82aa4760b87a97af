"""A mixture-of-experts layer."""

import math

import torch
from torch import Tensor, nn

from lightning_plugins.nn.moe.dispatch import Backend, dense_linear, dispatch, resolve_backend
from lightning_plugins.nn.moe.experts import Activation, Experts
from lightning_plugins.nn.moe.routing import (
    GATE_WEIGHTINGS,
    GateName,
    GateWeighting,
    Routing,
    SelectionRouter,
    build_gate,
    limit_capacity,
)


class MoELayer(nn.Module):
    """Sends each token to ``top_k`` of ``num_experts`` perceptrons and sums their weighted outputs.

    ``y = sum over the selected e of w_e(x) * expert_e(x)`` for tokens ``(..., in_features)``, plus
    ``shared(x)`` if there is a shared expert. With a single expert the layer is a perceptron
    without a gate, a selection bias and a capacity.

    Source: Shazeer et al., arXiv 1701.06538; notation of Wang and E, arXiv 2505.24205, section 3.

    Args:
        in_features: Features of a token.
        out_features: Features of an output.
        num_experts: Number of experts.
        hidden_features: Neurons in each hidden layer of an expert.
        top_k: Experts per token.
        num_layers: Linear layers of an expert, at least 2.
        activation: ``relu``, or ``swiglu`` with two projections to the hidden features.
        bias: Whether the experts' layers have biases.
        gate: ``linear``, ``affine``, ``mlp`` or ``cosine`` (:func:`build_gate`).
        gate_features: Hidden features of an ``mlp`` gate, dimension of a ``cosine`` gate.
        gate_weighting: ``softmax_all``, ``softmax_topk``, ``sigmoid_all`` or ``sigmoid_topk``
            (:func:`route`).
        selection_bias: Add a bias to the scores for the selection, which ``RouterBiasBalancing``
            moves (DeepSeek-V3).
        capacity_factor: Each expert accepts at most this many times its even share of the
            assignments (:func:`limit_capacity`); ``Routing.dropped`` has the others. None drops
            none. Dropped tokens are computed but do not contribute.
        train_gate: False freezes the gate.
        shared_features: Neurons in each hidden layer of an expert for all tokens; 0 disables it.
        shared_gate: Multiply the shared expert by a sigmoid of a linear function of the token, as
            in Qwen2-MoE.
        encoder_features: Every expert first maps its tokens linearly to this many features.
        backend: Method that sends tokens to their experts (:func:`dispatch`).

    Raises:
        ValueError: An argument is outside its range; the gate is trained with ``top_k=1`` and
            ``softmax_topk``, which gives it no gradient; or the back-end does not support the
            dtype of the weights.

    Example::

        layer = MoELayer(128, 128, num_experts=32, hidden_features=256, top_k=2)
        outputs, routing = layer.mix(tokens)
        loss = task_loss(outputs) + 0.01 * load_balancing_loss(routing)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_experts: int,
        hidden_features: int,
        *,
        top_k: int = 1,
        num_layers: int = 2,
        activation: Activation = "relu",
        bias: bool = True,
        gate: GateName = "linear",
        gate_features: int = 32,
        gate_weighting: GateWeighting = "softmax_all",
        train_gate: bool = True,
        selection_bias: bool = False,
        capacity_factor: float | None = None,
        shared_features: int = 0,
        shared_gate: bool = False,
        encoder_features: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_features", in_features, 1),
            ("out_features", out_features, 1),
            ("num_experts", num_experts, 1),
            ("hidden_features", hidden_features, 1),
            ("gate_features", gate_features, 1),
            ("num_layers", num_layers, 2),
            ("shared_features", shared_features, 0),
        ):
            if value < least:
                raise ValueError(f"{name}={value}: expected at least {least}")
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"top_k={top_k}: expected 1 to num_experts={num_experts}")
        if gate_weighting not in GATE_WEIGHTINGS:
            raise ValueError(
                f"gate_weighting={gate_weighting!r}: expected "
                f"{', '.join(map(repr, GATE_WEIGHTINGS))}"
            )
        if activation not in ("relu", "swiglu"):
            raise ValueError(f"activation={activation!r}: expected 'relu' or 'swiglu'")
        if gate_weighting.endswith("topk") and top_k == 1 < num_experts and train_gate:
            raise ValueError(
                f"gate_weighting={gate_weighting!r} with top_k=1 gives the selected expert the "
                "constant weight 1, so the gate gets no gradient: use gate_weighting="
                f"{gate_weighting.replace('topk', 'all')!r}, top_k=2 or more, or train_gate=False"
            )
        if capacity_factor is not None and not 0 < capacity_factor < math.inf:
            raise ValueError(
                f"capacity_factor={capacity_factor}: expected more than 0, or None to drop none"
            )
        if encoder_features is not None and not 1 <= encoder_features <= in_features:
            raise ValueError(
                f"encoder_features={encoder_features}: expected 1 to in_features={in_features}"
            )
        self.top_k = top_k
        self.gate_weighting = gate_weighting
        self.capacity_factor = capacity_factor
        self.backend = backend
        hidden = [hidden_features] * (num_layers - 1)
        self.gate = None
        if num_experts > 1:
            self.gate = build_gate(gate, in_features, num_experts, gate_features)
            self.gate.requires_grad_(train_gate)
            self.selection = SelectionRouter(num_experts, top_k, gate_weighting, selection_bias)
        self.experts = Experts(
            num_experts, [in_features, *hidden, out_features], activation, bias, encoder_features
        )
        self.shared = self.shared_gate = None
        if shared_features:
            shared_hidden = [shared_features] * (num_layers - 1)
            self.shared = Experts(1, [in_features, *shared_hidden, out_features], activation, bias)
            if shared_gate:
                self.shared_gate = nn.Linear(in_features, 1, bias=False)
        resolve_backend(backend, self.experts.weights[0].dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute outputs ``(..., out_features)`` of tokens ``(..., in_features)``."""
        return self.mix(tokens)[0]

    def mix(self, tokens: Tensor) -> tuple[Tensor, Routing]:
        """Compute outputs ``(..., out_features)`` and the routing of the flattened tokens."""
        flat = tokens.flatten(0, -2)
        routing = self.route(flat)
        if self.gate is None:
            outputs = self.experts(flat.unsqueeze(0), dense_linear).squeeze(0)
        else:
            outputs = dispatch(flat, routing, self.experts, self.backend)
        if self.shared is not None:
            shared = self.shared(flat.unsqueeze(0), dense_linear).squeeze(0)
            if self.shared_gate is not None:
                shared = self.shared_gate(flat).sigmoid() * shared
            outputs = outputs + shared
        return outputs.unflatten(0, tokens.shape[:-1]), routing

    def route(self, tokens: Tensor) -> Routing:
        """Route tokens ``(tokens, in_features)``."""
        if self.gate is None:
            zeros = torch.zeros_like(tokens[:, :1])
            return Routing(zeros, zeros.long(), torch.ones_like(zeros))
        logits, weights, experts = self.selection(self.gate(tokens))
        routing = Routing(logits, experts, weights)
        if self.capacity_factor is None:
            return routing
        return limit_capacity(routing, self.capacity_factor)

    def reconstruction_error(self, tokens: Tensor, routing: Routing) -> Tensor:
        """Compute the mean squared error of tokens decoded from the selected experts' encoders."""
        equal = Routing(
            routing.logits, routing.experts, torch.full_like(routing.weights, 1 / self.top_k)
        )
        flat = tokens.flatten(0, -2)
        return dispatch(flat, equal, self.experts.reconstruction_error, self.backend).mean()

    @property
    def num_active_parameters(self) -> int:
        """Number of parameters that one token uses; excludes the decoder."""
        total = sum(parameter.numel() for parameter in self.parameters())
        experts = sum(parameter.numel() for parameter in self.experts.parameters())
        decoder = self.experts.decoder
        used = experts - (0 if decoder is None else decoder.numel())
        return total - experts + used * self.top_k // self.experts.num_experts
