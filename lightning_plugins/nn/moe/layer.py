"""A mixture-of-experts layer."""

import torch
from torch import Tensor, nn

from lightning_plugins.nn.moe.dispatch import Backend, dense_linear, dispatch, resolve_backend
from lightning_plugins.nn.moe.experts import Activation, Experts
from lightning_plugins.nn.moe.routing import (
    GATE_WEIGHTINGS,
    GateName,
    GateWeighting,
    Routing,
    build_gate,
    route,
)


class MoELayer(nn.Module):
    """Sends each token to ``top_k`` of ``num_experts`` perceptrons and adds up what they say.

    ``y = sum over the selected e of w_e(x) * expert_e(x)`` for tokens ``(..., in_features)``, plus
    ``shared(x)`` where there is a shared expert. With one expert there is no gate: the layer is
    that perceptron.

    Source: Shazeer et al., arXiv 1701.06538; notation of Wang and E, arXiv 2505.24205, section 3.

    Args:
        in_features: of a token.
        out_features: of an output.
        num_experts: to choose from.
        hidden_features: neurons in each hidden layer of an expert.
        top_k: experts a token.
        num_layers: linear layers of an expert, 2 or more.
        activation: ``relu``, or ``swiglu`` with two projections to the hidden features.
        bias: whether the experts' layers have biases.
        gate: ``linear``, ``affine``, ``mlp`` or ``cosine`` (:func:`build_gate`).
        gate_features: hidden features of an ``mlp`` gate, dimensions of a ``cosine`` gate.
        gate_weighting: ``softmax_all`` or ``softmax_topk`` (:func:`route`).
        train_gate: False freezes the gate.
        shared_features: neurons in each hidden layer of an expert that sees every token; 0 is none.
        shared_gate: multiply the shared expert by a sigmoid of a linear function of the token, as
            Qwen2-MoE does.
        encoder_features: every expert first maps its tokens linearly to this many features.
        backend: how tokens get to their experts (:func:`dispatch`).

    Raises:
        ValueError: an argument outside its range; ``top_k=1`` with ``softmax_topk`` and a gate that
            is to be trained, which would get no gradient; a back-end that does not know the type
            of the weights.

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
            raise ValueError(
                f"top_k={top_k}: expected 1 to num_experts={num_experts}: a token cannot go to "
                "more experts than there are"
            )
        if gate_weighting not in GATE_WEIGHTINGS:
            raise ValueError(
                f"gate_weighting={gate_weighting!r}: expected 'softmax_all' or 'softmax_topk'"
            )
        if activation not in ("relu", "swiglu"):
            raise ValueError(f"activation={activation!r}: expected 'relu' or 'swiglu'")
        if gate_weighting == "softmax_topk" and top_k == 1 < num_experts and train_gate:
            raise ValueError(
                "gate_weighting='softmax_topk' with top_k=1 weighs the selected expert by the "
                "constant 1, so that the gate gets no gradient: use gate_weighting='softmax_all', "
                "top_k=2 or more, or train_gate=False"
            )
        if encoder_features is not None and not 1 <= encoder_features <= in_features:
            raise ValueError(
                f"encoder_features={encoder_features}: expected 1 to in_features={in_features}"
            )
        self.top_k = top_k
        self.gate_weighting = gate_weighting
        self.backend = backend
        hidden = [hidden_features] * (num_layers - 1)
        self.gate = None
        if num_experts > 1:
            self.gate = build_gate(gate, in_features, num_experts, gate_features)
            self.gate.requires_grad_(train_gate)
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
        """Outputs ``(..., out_features)`` of tokens ``(..., in_features)``."""
        return self.mix(tokens)[0]

    def mix(self, tokens: Tensor) -> tuple[Tensor, Routing]:
        """Outputs ``(..., out_features)``, and where the flattened tokens went."""
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
        """Where tokens ``(tokens, in_features)`` go."""
        if self.gate is None:
            zeros = torch.zeros_like(tokens[:, :1])
            return Routing(zeros, zeros.long(), torch.ones_like(zeros))
        return route(self.gate(tokens), self.top_k, self.gate_weighting)

    def reconstruction_error(self, tokens: Tensor, routing: Routing) -> Tensor:
        """Mean squared error of decoding what the selected experts' encoders keep of a token."""
        equal = Routing(
            routing.logits, routing.experts, torch.full_like(routing.weights, 1 / self.top_k)
        )
        flat = tokens.flatten(0, -2)
        return dispatch(flat, equal, self.experts.reconstruction_error, self.backend).mean()

    @property
    def num_active_parameters(self) -> int:
        """Parameters that take part in the output of one token, which a decoder does not."""
        total = sum(parameter.numel() for parameter in self.parameters())
        experts = sum(parameter.numel() for parameter in self.experts.parameters())
        decoder = self.experts.decoder
        used = experts - (0 if decoder is None else decoder.numel())
        return total - experts + used * self.top_k // self.experts.num_experts
