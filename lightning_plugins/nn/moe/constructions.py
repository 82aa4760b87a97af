"""Mixtures of experts with weights constructed from the proofs instead of trained."""

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
    """A function ``f(x)_l = piece(l, i_l, x_l)`` on ``[0, pieces]^axes``, x_l in interval i_l."""

    pieces: int
    axes: int

    def piece(self, axis: int, index: int, z: Tensor) -> Tensor:
        """Evaluate the function of interval ``index - 1 <= z <= index``, with index from 1."""


def construct_on_cube(
    target: SeparablePieces, hidden_features: int, gate: RouteBy = "affine"
) -> MoENetwork:
    """Construct L mixtures of E experts that represent the E^L pieces of ``target``.

    The mixture for axis l routes exactly by the interval of x_l. Its expert i replaces x_l by the
    linear spline that interpolates the l-th function on interval i, and passes the other
    coordinates through as ``relu(x) - relu(-x)``. The error is therefore that of interpolation in
    one variable, ``sup |f''| / (8 n^2)`` with ``n = hidden_features - 2 (axes - 1)`` segments per
    interval.

    With ``gate="linear"`` a dense layer before each mixture computes E functions of x_l that form a
    partition of unity; function i is the largest on interval i, and the gate selects by it. The
    network has 2 L layers, as in the proof. With ``gate="affine"`` the scores
    ``(i - 1) x_l - i (i - 1) / 2`` select the interval directly, because intervals are a power
    diagram. The network has L layers.

    Source: Wang and E, arXiv 2505.24205, theorem 5.3 and the idea of its proof. The version with
    affine gates and without dense layers is ours.

    Args:
        target: Function with one output per axis.
        hidden_features: Width m in the theorem, the number of all neurons of an expert.
        gate: ``affine`` or ``linear``.

    Raises:
        ValueError: There are fewer neurons than the construction requires, or the gate is unknown.
    """
    experts, axes = target.pieces, target.axes
    carried = 2 * (axes - 1)
    least = carried + 2 if gate == "affine" else max(carried + 2, 2 * axes + experts)
    if gate not in ("affine", "linear"):
        raise ValueError(f"gate={gate!r}: expected 'affine' or 'linear'")
    if hidden_features < least:
        raise ValueError(
            f"hidden_features={hidden_features}: with {axes} axes, {experts} pieces and a {gate} "
            f"gate the construction requires at least {least}"
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
    """Pass each coordinate through with two neurons, as ``relu(x) - relu(-x)``."""
    for neuron, coordinate in enumerate(coordinates):
        first[coordinate, 2 * neuron], first[coordinate, 2 * neuron + 1] = 1, -1
        second[2 * neuron, coordinate], second[2 * neuron + 1, coordinate] = 1, -1


def _route_by_interval(layer: MoELayer, axis: int) -> None:
    gate: Any = layer.gate
    if gate is None:  # a single interval
        return
    index = torch.arange(1.0, layer.experts.num_experts + 1)
    gate.weight[:, axis] = index - 1
    gate.bias.copy_(-index * (index - 1) / 2)


def _write_partition(layer: MoELayer, axis: int, axes: int, experts: int) -> None:
    """Append the linear interpolation of unit vectors at the interval centres."""
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
    """Construct one mixture with a linear gate that represents a function on the unit circle.

    Expert i covers the arc around the angle ``2 pi i / charts``. Its chart is linear: the component
    t of x along the tangent at the centre of the arc. On the arc the function depends on t alone,
    and a linear spline with ``hidden_features`` segments interpolates it. The gate's scores are the
    components of x along the centres, so its regions are exactly the arcs. The first of the
    theorem's two layers is not needed.

    Source: Wang and E, arXiv 2505.24205, corollary 4.9 and example 4.6.

    Args:
        function: Maps points ``(points, 2)`` to ``(points, 1)``.
        hidden_features: Neurons per expert, m in the theorem.
        charts: Number of arcs and of experts.

    Raises:
        ValueError: There are fewer than 3 charts, for which the component would not distinguish
            points, or there is no neuron.
    """
    if charts < 3:
        raise ValueError(
            f"charts={charts}: expected at least 3, because longer arcs have no linear chart"
        )
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
    """The spline ``value + sum_k kinks[k] * relu(x - knots[k])`` for x from the first knot.

    Attributes:
        knots: Knots, float64 ``(neurons,)``.
        kinks: Change of the slope at each knot, float64 ``(neurons,)``.
        value: Value at the first knot, a float64 scalar.
    """

    knots: Tensor
    kinks: Tensor
    value: Tensor


def interpolating_spline(
    function: Callable[[Tensor], Tensor], low: float, high: float, neurons: int
) -> Spline:
    """Interpolate ``function`` by a spline with ``neurons`` equal segments.

    The error is at most ``(high - low)^2 / (8 * neurons^2) * sup |f''|`` (de Boor, A Practical
    Guide to Splines, chapter III).
    """
    ends = torch.linspace(low, high, neurons + 1, dtype=torch.float64)
    values = function(ends)
    slopes = values.diff() / ends.diff()
    return Spline(ends[:-1], slopes.diff(prepend=slopes.new_zeros(1)), values[0])
