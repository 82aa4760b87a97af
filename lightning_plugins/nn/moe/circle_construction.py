"""The weights that the proof for linear charts describes, on the circle."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_plugins.nn.moe.network import MoENetwork
from lightning_plugins.nn.moe.spline import interpolating_spline


def construct_on_circle(
    function: Callable[[Tensor], Tensor], hidden_features: int, charts: int = 4
) -> MoENetwork:
    """A single mixture with a linear gate that represents ``function`` on the unit circle.

    Expert i holds the arc around the angle ``2 pi i / charts``. Its chart is linear: the component
    t of x along the tangent there. On the arc the function is one of t alone, which a linear spline
    with ``hidden_features`` segments interpolates. The gate's scores are the components of x along
    the arcs' centres, so that arcs are its regions exactly, and the first of the two layers of the
    theorem is not needed.

    Source: Wang and E, arXiv 2505.24205, corollary 4.9 and example 4.6.

    Args:
        function: from points ``(points, 2)`` to ``(points, 1)``.
        hidden_features: neurons of an expert, the theorem's m.
        charts: arcs, and experts.

    Raises:
        ValueError: fewer than 3 charts, on which the component would not tell points apart, or no
            neuron.
    """
    if charts < 3:
        raise ValueError(f"charts={charts}: expected at least 3, so that arcs have linear charts")
    network = MoENetwork(
        2,
        1,
        depth=1,
        num_experts=charts,
        hidden_features=hidden_features,
        gate_weighting="softmax_topk",
        train_gate=False,
    )
    (layer,) = network.layers
    angles = 2 * math.pi / charts * torch.arange(charts, dtype=torch.float64)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    tangents = torch.stack([-angles.sin(), angles.cos()], dim=1)
    first, second = layer.experts.weights
    shift, last = layer.experts.biases
    end = math.sin(math.pi / charts)
    with torch.no_grad():
        layer.gate.weight.copy_(centres)
        for expert in range(charts):
            centre, tangent = centres[expert], tangents[expert]

            def along_arc(t: Tensor, centre: Tensor = centre, tangent: Tensor = tangent) -> Tensor:
                t = t.unsqueeze(1)
                return function((1 - t.square()).sqrt() * centre + t * tangent).squeeze(1)

            spline = interpolating_spline(along_arc, -end, end, hidden_features)
            first[expert] = tangent.unsqueeze(1).to(first.dtype)
            shift[expert] = -spline.knots.to(shift.dtype)
            second[expert] = spline.kinks.unsqueeze(1).to(second.dtype)
            last[expert] = spline.value.to(last.dtype)
    return network
