"""Networks with constructed weights: exact routing, continuity, and the bounds of the theorems."""

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.nn.moe import (
    Bumps,
    SineCosine,
    construct_on_circle,
    construct_on_cube,
    num_unique_paths,
    paths_of,
)
from lightning_plugins.nn.moe.constructions import interpolating_spline

GATES = ("affine", "linear")


class Polynomials:
    """A random cubic on each interval of each axis, continuous at the interval ends."""

    def __init__(self, pieces, axes, seed):
        generator = torch.Generator().manual_seed(seed)
        self.pieces = pieces
        self.axes = self.out_features = axes
        self.values = torch.randn(axes, pieces + 1, generator=generator).double()
        self.inner = torch.randn(axes, pieces, 2, generator=generator).double()

    def piece(self, axis, index, z):
        s = z - (index - 1)
        start, end = self.values[axis, index - 1], self.values[axis, index]
        a, b = self.inner[axis, index - 1]
        return start + (end - start) * s + s * (1 - s) * (a + b * s)

    def largest_second_derivative(self):
        a, b = self.inner.unbind(-1)  # of s (1 - s) (a + b s): 2 (b - a) - 6 b s, linear in s
        return float(torch.maximum((2 * (b - a)).abs(), (2 * (b - a) - 6 * b).abs()).max())

    def __call__(self, points):
        columns = []
        for axis in range(self.axes):
            index = points[:, axis].floor().long().clamp(0, self.pieces - 1) + 1
            every = [self.piece(axis, i, points[:, axis]) for i in range(1, self.pieces + 1)]
            columns.append(torch.stack(every, 1).gather(1, index.unsqueeze(1) - 1).squeeze(1))
        return torch.stack(columns, dim=1)


def points_in_cube(pieces, axes, number=4000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return pieces * torch.rand(number, axes, generator=generator, dtype=torch.float64)


def paths(network, pieces, axes):
    centres = torch.cartesian_prod(*[torch.arange(pieces) + 0.5] * axes).view(-1, axes)
    _, steps = network.mix(centres.to(next(network.parameters()).dtype))
    return paths_of([step.routing for step in steps])


@torch.no_grad()
def sup_error(network, target, points):
    return float((network(points.float()) - target(points)).abs().max())


@pytest.mark.parametrize("gate", GATES)
def test_twenty_experts_represent_1024_pieces_with_less_error_than_the_bound(gate):
    started = time.process_time()
    target, points = Bumps(4, 5), points_in_cube(4, 5, 20_000)
    errors = {}
    for width in (16, 32, 64, 128):
        network = construct_on_cube(target, width, gate)
        mixtures = [layer for layer in network.layers if layer.gate is not None]
        assert sum(layer.experts.num_experts for layer in mixtures) == 20
        assert num_unique_paths(paths(network, 4, 5)) == 1024
        errors[width] = sup_error(network, target, points)
    slope = math.log(errors[128] / errors[16]) / math.log(128 / 16)
    print(f"{gate} gate: sup errors {errors}, slope {slope:.2f} in width")
    assert slope <= -0.5
    assert time.process_time() - started < 5


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.integers(1, 6),
    axes=st.integers(1, 4),
    segments=st.integers(2, 40),
    gate=st.sampled_from(GATES),
    seed=st.integers(0, 99),
)
def test_constructions_satisfy_their_bound_are_continuous_and_use_every_path(
    pieces, axes, segments, gate, seed
):
    target = Polynomials(pieces, axes, seed)
    width = max(2 * (axes - 1) + segments, 2 * axes + pieces)
    network = construct_on_cube(target, width, gate).double()
    points = points_in_cube(pieces, axes, 1000, seed)
    with torch.no_grad():
        error = float((network(points) - target(points)).abs().max())
        step = 1e-7
        below = points.clone()
        below[:, 0] = points[:, 0].round().clamp(min=1)
        jump = float((network(below - step) - network(below + step)).abs().max())
    bound = target.largest_second_derivative() / 8 / (width - 2 * (axes - 1)) ** 2
    rounding = 1e-4  # the weights are single precision
    assert error <= bound + rounding
    assert jump <= 100 * step + rounding
    if pieces > 1:
        assert num_unique_paths(paths(network, pieces, axes)) == pieces**axes


def test_a_linear_gate_after_a_partition_of_unity_routes_like_an_affine_gate():
    target, points = Polynomials(5, 2, 0), points_in_cube(5, 2)
    by = {gate: construct_on_cube(target, 20, gate) for gate in GATES}
    assert [len(by[gate].layers) for gate in GATES] == [2, 4]
    routings = {
        gate: paths_of([step.routing for step in by[gate].mix(points.float())[1]]) for gate in GATES
    }
    expected = points.float().floor().long()
    for gate in GATES:
        assert torch.equal(routings[gate], expected)


def test_the_dense_layer_before_a_linear_gate_is_a_partition_of_unity():
    network = construct_on_cube(Bumps(4, 2), 12, "linear")
    with torch.no_grad():
        state = network.layers[0](points_in_cube(4, 2).float())
    partition = state[:, 2:]
    torch.testing.assert_close(partition.sum(dim=1), torch.ones(4000))
    assert partition.min() > -1e-6


def test_a_linear_gate_separates_arcs_of_a_circle_with_quadratic_error():
    angles = 2 * math.pi * torch.rand(4000, generator=torch.Generator().manual_seed(0))
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    target = SineCosine()
    for charts in (3, 4, 8):
        errors = {}
        for width in (16, 64):
            network = construct_on_circle(target, width, charts)
            (step,) = network.mix(points)[1]
            expected = (angles / (2 * math.pi / charts)).round().long() % charts
            assert torch.equal(step.routing.experts[:, 0], expected)
            errors[width] = sup_error(network, target, points)
        assert errors[64] < errors[16] / 10


def test_a_spline_satisfies_its_bound_and_is_exact_at_segment_ends():
    spline = interpolating_spline(torch.sin, 0, 3, 10)
    x = torch.linspace(0, 3, 301, dtype=torch.float64)
    values = spline.value + (spline.kinks * (x.unsqueeze(1) - spline.knots).relu()).sum(1)
    assert (values - x.sin()).abs().max() <= 0.3**2 / 8
    torch.testing.assert_close(values[::30], x[::30].sin())


def test_a_constructed_gate_is_frozen():
    network = construct_on_cube(Bumps(2, 2), 8)
    assert not any(p.requires_grad for layer in network.layers for p in layer.gate.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: construct_on_cube(Bumps(4, 5), 9), r"hidden_features=9: .* at least 10"),
        (lambda: construct_on_cube(Bumps(4, 5), 13, "linear"), r"hidden_features=13.*at least 14"),
        (lambda: construct_on_cube(Bumps(4, 5), 32, "mlp"), r"gate='mlp': expected 'affine'"),
        (lambda: construct_on_circle(SineCosine(), 8, 2), r"charts=2: expected at least 3"),
    ],
)
def test_invalid_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
