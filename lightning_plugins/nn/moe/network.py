"""Networks of mixture-of-experts layers."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from lightning_plugins.nn.moe.layer import MoELayer
from lightning_plugins.nn.moe.routing import Routing

Arrangement = Literal["moe", "dense_moe", "shared_routed"]
ARRANGEMENTS = ("moe", "dense_moe", "shared_routed")


@dataclass(frozen=True)
class RoutedStep:
    """A layer with a gate, its tokens ``(tokens, in_features)`` and their routing."""

    layer: MoELayer
    tokens: Tensor
    routing: Routing


class MoENetwork(nn.Module):
    """The composition of ``depth`` layers, from ``(batch, in_features)`` to ``out_features``.

    Without residual connections, as in the paper, each layer must pass on all information that
    later layers need.

    ``arrangement`` is one of

    * ``moe``: every layer is a mixture,
    * ``dense_moe``: dense layers and mixtures alternate, as in GShard and GLaM,
    * ``shared_routed``: every layer is a mixture with an additional expert for all tokens, as in
      DeepSeek.

    Source: Wang and E, arXiv 2505.24205, section 3; the arrangements are those of its discussion.

    Args:
        in_features: Features of an input.
        out_features: Features of an output.
        depth: Number of layers, including dense layers.
        num_experts: Experts per mixture; with 1 the network is dense.
        hidden_features: Neurons in each hidden layer of an expert.
        state_features: Features between layers; None means ``in_features``.
        arrangement: ``moe``, ``dense_moe`` or ``shared_routed``.
        residual: Add the input in every layer with as many outputs as inputs.
        layer: Further arguments of :class:`MoELayer` for each mixture.

    Attributes:
        settings: The arguments, to build another network of the same shape.

    Raises:
        ValueError: An argument is outside its range, or no layer can have a residual connection.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        num_experts: int,
        hidden_features: int,
        *,
        state_features: int | None = None,
        arrangement: Arrangement = "moe",
        residual: bool = False,
        **layer: Any,
    ) -> None:
        super().__init__()
        self.settings = {
            "in_features": in_features,
            "out_features": out_features,
            "depth": depth,
            "num_experts": num_experts,
            "hidden_features": hidden_features,
            "state_features": state_features,
            "arrangement": arrangement,
            "residual": residual,
            **layer,
        }
        state_features = in_features if state_features is None else state_features
        if depth < 1:
            raise ValueError(f"depth={depth}: expected at least 1")
        if state_features < 1:
            raise ValueError(f"state_features={state_features}: expected at least 1")
        if arrangement not in ARRANGEMENTS:
            raise ValueError(
                f"arrangement={arrangement!r}: expected {', '.join(map(repr, ARRANGEMENTS))}"
            )
        if arrangement == "dense_moe" and depth % 2:
            raise ValueError(
                f"depth={depth} with arrangement='dense_moe': expected an even number, because "
                "dense layers and mixtures alternate"
            )
        if arrangement == "shared_routed":
            layer = {"shared_features": hidden_features, **layer}
        features = [in_features, *[state_features] * (depth - 1), out_features]
        self.layers: Any = nn.ModuleList()  # of MoELayer
        for index in range(depth):
            is_dense = arrangement == "dense_moe" and index % 2 == 0
            self.layers.append(
                MoELayer(
                    features[index],
                    features[index + 1],
                    hidden_features=hidden_features,
                    **({"num_experts": 1} if is_dense else {"num_experts": num_experts, **layer}),
                )
            )
        self.adds_input = [residual and features[i] == features[i + 1] for i in range(depth)]
        if residual and not any(self.adds_input):
            raise ValueError(
                f"residual=True: no layer has as many outputs as inputs, with features "
                f"{' -> '.join(map(str, features))}; set residual=False"
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute outputs ``(batch, out_features)``."""
        return self.mix(inputs)[0]

    def mix(self, inputs: Tensor) -> tuple[Tensor, list[RoutedStep]]:
        """Compute outputs ``(batch, out_features)`` and the step of each layer with a gate."""
        state, steps = inputs, []
        for layer, adds_input in zip(self.layers, self.adds_input, strict=True):
            outputs, routing = layer.mix(state)
            if layer.gate is not None:
                steps.append(RoutedStep(layer, state, routing))
            state = state + outputs if adds_input else outputs
        return state, steps

    @property
    def num_active_parameters(self) -> int:
        """Number of parameters that one input uses."""
        return sum(layer.num_active_parameters for layer in self.layers)
