"""Mixture-of-experts layers, one after the other."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from lightning_plugins.nn.moe.layer import MoELayer
from lightning_plugins.nn.moe.routing import Routing

Arrangement = Literal["moe", "dense_moe", "shared_routed"]
ARRANGEMENTS = ("moe", "dense_moe", "shared_routed")


@dataclass(frozen=True)
class RoutedStep:
    """What a layer with a gate did: its tokens ``(tokens, in_features)`` and where they went."""

    layer: MoELayer
    tokens: Tensor
    routing: Routing


class MoENetwork(nn.Module):
    """The composition of ``depth`` layers, from ``(batch, in_features)`` to ``out_features``.

    Without a residual connection, as in the paper, each layer has to carry on what later ones need.

    ``arrangement`` is one of

    * ``moe``: every layer is a mixture,
    * ``dense_moe``: dense layers and mixtures in turns, as in GShard and GLaM,
    * ``shared_routed``: every layer is a mixture beside an expert for all tokens, as in DeepSeek.

    Source: Wang and E, arXiv 2505.24205, section 3; the arrangements are those of its discussion.

    Args:
        in_features: of an input.
        out_features: of an output.
        depth: layers, dense ones included.
        num_experts: of each mixture; with 1 the network is dense.
        hidden_features: neurons in each hidden layer of an expert.
        state_features: between layers; None is ``in_features``.
        arrangement: as above.
        residual: layers with as many outputs as inputs add their input.
        layer: what else :class:`MoELayer` takes, for each mixture.

    Attributes:
        settings: the arguments, by which another network of this shape is built.

    Raises:
        ValueError: an argument outside its range, or a residual connection that no layer can have.
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
                f"depth={depth} with arrangement='dense_moe': expected pairs of a dense layer and "
                "a mixture, so an even number"
            )
        if arrangement == "shared_routed":
            layer = {"shared_features": hidden_features, **layer}
        features = [in_features, *[state_features] * (depth - 1), out_features]
        self.layers: Any = nn.ModuleList()  # of MoELayer
        for place in range(depth):
            is_dense = arrangement == "dense_moe" and place % 2 == 0
            self.layers.append(
                MoELayer(
                    features[place],
                    features[place + 1],
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
        """Outputs ``(batch, out_features)``."""
        return self.mix(inputs)[0]

    def mix(self, inputs: Tensor) -> tuple[Tensor, list[RoutedStep]]:
        """Outputs ``(batch, out_features)``, and what each layer with a gate did."""
        state, steps = inputs, []
        for layer, adds_input in zip(self.layers, self.adds_input, strict=True):
            outputs, routing = layer.mix(state)
            if layer.gate is not None:
                steps.append(RoutedStep(layer, state, routing))
            state = state + outputs if adds_input else outputs
        return state, steps

    @property
    def num_active_parameters(self) -> int:
        """Parameters that take part in the output of one input."""
        return sum(layer.num_active_parameters for layer in self.layers)
