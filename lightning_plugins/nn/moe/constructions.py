"""Mixtures of experts whose weights follow the proofs instead of training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_plugins.nn.moe.layer import MoELayer
from lightning_plugins.nn.moe.network import MoENetwork

RouteBy = Literal["affine", "linear"]


@runtime_checkable
class SeparablePieces(Protocol):
    """``f(x)_l = piece(l, i_l, x_l)`` on ``[0, pieces]^axes``, with i_l the interval of x_l."""

    pieces: int
    axes: int

    def piece(self, axis: int, index: int, z: Tensor) -> Tensor:
        """The function that holds for ``index - 1 <= z <= index`` along an axis, index from 1."""


def construct_on_cube(
    target: SeparablePieces, hidden_features: int, gate: RouteBy = "affine"
) -> MoENetwork:
    """A network that represents ``target`` with its weights written down, not learned.

    The mixture for axis l routes by the interval of x_l, exactly. Its expert i replaces x_l by the
    linear spline that interpolates the l-th function on interval i, and carries the other
    coordinates on as ``relu(x) - relu(-x)``. So the error is that of interpolation in one variable,
    ``sup |f''| / (8 n^2)`` with ``n = hidden_features - 2 (axes - 1)`` segments an interval.

    With ``gate="linear"`` a dense layer before each mixture computes E functions of x_l that are a
    partition of unity, the i-th largest on interval i, and the mixture's gate selects among them:
    2 L layers, as in the proof. With ``gate="affine"`` the scores ``(i - 1) x_l - i (i - 1) / 2``
    select the same interval directly, since intervals are a power diagram: L layers.

    Source: Wang and E, arXiv 2505.24205, theorem 5.3 and the idea of its proof. That an affine gate
    needs no dense layer is our remark.

    Args:
        target: with one output an axis.
        hidden_features: the theorem's width m, all neurons of an expert counted.
        gate: as above.

    Raises:
        ValueError: fewer neurons than the construction needs, or an unknown gate.
    """
    experts, axes = target.pieces, target.axes
    carried = 2 * (axes - 1)
    least = carried + 2 if gate == "affine" else max(carried + 2, 2 * axes + experts)
    if gate not in ("affine", "linear"):
        raise ValueError(f"gate={gate!r}: expected 'affine' or 'linear'")
    if hidden_features < least:
        raise ValueError(
            f"hidden_features={hidden_features}: with {axes} axes, {experts} pieces and a {gate} "
            f"gate the construction needs at least {least}"
        )
    is_linear = gate == "linear"
    network = MoENetwork(
        axes,
        axes,
        depth=2 * axes if is_linear else axes,
        num_experts=experts,
        hidden_features=hidden_features,
        state_features=axes + experts if is_linear else axes,
        arrangement="dense_moe" if is_linear else "moe",
        gate=gate,
        gate_weighting="softmax_topk",
        train_gate=False,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        layers = list(network.layers)
        for axis in range(axes):
            if is_linear:
                _write_partition(layers[2 * axis], axis, axes, experts)
                _route_by_partition(layers[2 * axis + 1], axes)
                _write_experts(layers[2 * axis + 1], target, axis)
            else:
                _route_by_interval(layers[axis], axis)
                _write_experts(layers[axis], target, axis)
    return network


def _write_experts(layer: MoELayer, target: SeparablePieces, axis: int) -> None:
    first, second = layer.experts.weights
    shift, last = layer.experts.biases
    others = [other for other in range(target.axes) if other != axis]
    for expert in range(layer.experts.num_experts):
        _carry(first[expert], second[expert], others)
        place = 2 * len(others)
        index = expert + 1
        spline = interpolating_spline(
            lambda z, index=index: target.piece(axis, index, z),  # type: ignore[misc]
            index - 1,
            index,
            first.shape[-1] - place,
        )
        first[expert, axis, place:] = 1
        shift[expert, place:] = -spline.knots
        second[expert, place:, axis] = spline.kinks.to(second.dtype)
        last[expert, axis] = spline.value


def _carry(first: Tensor, second: Tensor, coordinates: list[int]) -> None:
    """Let each coordinate through, in two neurons: ``relu(x) - relu(-x)``."""
    for neuron, coordinate in enumerate(coordinates):
        first[coordinate, 2 * neuron], first[coordinate, 2 * neuron + 1] = 1, -1
        second[2 * neuron, coordinate], second[2 * neuron + 1, coordinate] = 1, -1


def _route_by_interval(layer: MoELayer, axis: int) -> None:
    gate: Any = layer.gate
    if gate is None:  # one interval
        return
    index = torch.arange(1.0, layer.experts.num_experts + 1)
    gate.weight[:, axis] = index - 1
    gate.bias.copy_(-index * (index - 1) / 2)


def _write_partition(layer: MoELayer, axis: int, axes: int, experts: int) -> None:
    """Append to the coordinates the linear interpolation of unit vectors at interval centres."""
    (first,), (second,) = layer.experts.weights
    (shift,), (last,) = layer.experts.biases
    _carry(first, second, list(range(axes)))
    neurons = slice(2 * axes, 2 * axes + experts)
    first[axis, neurons] = 1
    shift[neurons] = -(torch.arange(experts) + 0.5)
    rows = second[neurons, axes:]
    unit = torch.eye(experts, dtype=rows.dtype)
    flat = unit.new_zeros(1, experts)
    slopes = torch.cat([flat, unit.diff(dim=0), flat])
    rows.copy_(slopes.diff(dim=0))
    last[axes] = 1


def _route_by_partition(layer: MoELayer, axes: int) -> None:
    gate: Any = layer.gate
    if gate is not None:
        gate.weight[:, axes:].fill_diagonal_(1)


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


@dataclass(frozen=True)
class Spline:
    """``value + sum_k kinks[k] * relu(x - knots[k])`` for x from the first knot on.

    Attributes:
        knots: float64 ``(neurons,)``.
        kinks: change of the slope at each knot, float64 ``(neurons,)``.
        value: at the first knot, float64 without dimensions.
    """

    knots: Tensor
    kinks: Tensor
    value: Tensor


def interpolating_spline(
    function: Callable[[Tensor], Tensor], low: float, high: float, neurons: int
) -> Spline:
    """The spline with ``neurons`` equal segments that agrees with ``function`` at their ends.

    It is off by at most ``(high - low)^2 / (8 * neurons^2) * sup |f''|`` (de Boor, A Practical
    Guide to Splines, chapter III).
    """
    ends = torch.linspace(low, high, neurons + 1, dtype=torch.float64)
    values = function(ends)
    slopes = values.diff() / ends.diff()
    return Spline(ends[:-1], slopes.diff(prepend=slopes.new_zeros(1)), values[0])
