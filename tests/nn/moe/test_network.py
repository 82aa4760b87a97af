"""Compositions of mixtures, the paths through them, and targets with known pieces."""

import math

import pytest
import torch

from lightning_plugins.nn.moe import (
    Bumps,
    MoENetwork,
    Routing,
    build_target,
    load_entropy,
    num_unique_paths,
    paths_of,
    routing_accuracy,
)

SMALL = {"in_features": 3, "out_features": 2, "depth": 2, "num_experts": 4, "hidden_features": 8}


def network(**changes):
    torch.manual_seed(0)
    return MoENetwork(**(SMALL | changes))


def inputs(number=50, features=3):
    return torch.randn(number, features, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_network_is_the_composition_of_its_layers():
    module = network()
    first, second = module.layers
    torch.testing.assert_close(module(inputs()), second(first(inputs())))


def test_a_residual_is_added_where_the_features_match():
    plain, residual = network(), network(residual=True)
    state = inputs() + plain.layers[0](inputs())
    torch.testing.assert_close(residual(inputs()), plain.layers[1](state))


def test_every_second_layer_is_dense():
    module = network(arrangement="dense_moe", depth=4)
    assert [layer.gate is None for layer in module.layers] == [True, False, True, False]
    assert len(module.mix(inputs())[1]) == 2


def test_a_shared_expert_processes_every_input():
    module = network(arrangement="shared_routed", depth=1)
    (layer,) = module.layers
    routed = network(depth=1).layers[0]
    routed.load_state_dict({k: v for k, v in layer.state_dict().items() if "shared" not in k})
    first, second = layer.shared.weights
    shift, last = layer.shared.biases
    shared = (inputs() @ first[0] + shift[0]).relu() @ second[0] + last[0]
    torch.testing.assert_close(module(inputs()), routed(inputs()) + shared)


def test_active_parameters_are_summed_over_the_layers():
    module = network(depth=3, state_features=5, top_k=2)
    assert module.num_active_parameters == sum(x.num_active_parameters for x in module.layers)
    dense = network(num_experts=1)
    assert dense.num_active_parameters == sum(p.numel() for p in dense.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, r"depth=0: expected at least 1"),
        ({"state_features": 0}, r"state_features=0"),
        ({"arrangement": "sparse"}, r"arrangement='sparse': expected 'moe', 'dense_moe'"),
        ({"arrangement": "dense_moe", "depth": 3}, r"depth=3 with arrangement='dense_moe'"),
        ({"residual": True, "depth": 1}, r"residual=True: .*3 -> 2"),
        ({"top_k": 5}, r"top_k=5"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        network(**changes)


def routing(experts, num_experts=4):
    experts = torch.tensor(experts)
    weights = torch.ones_like(experts, dtype=torch.float32)
    return Routing(torch.zeros(len(experts), num_experts), experts, weights)


def test_paths_are_counted_over_layers_and_by_first_choice():
    paths = paths_of([routing([[0, 1], [0, 2], [1, 3]]), routing([[2, 0], [3, 0], [3, 1]])])
    assert paths.tolist() == [[0, 2], [0, 3], [1, 3]]
    assert num_unique_paths(paths) == 3


def test_entropy_is_one_at_balance_and_zero_at_collapse():
    assert load_entropy(routing([[0], [1], [2], [3]])) == pytest.approx(1)
    assert load_entropy(routing([[2], [2], [2]])) == 0
    assert load_entropy(routing([[0], [1], [0], [1]])) == pytest.approx(0.5)


def test_routing_accuracy_is_one_to_one_and_ignores_labels():
    regions = torch.tensor([5, 5, 5, 7, 7, 9])
    renamed = torch.tensor([2, 2, 2, 0, 0, 1]).unsqueeze(1)
    assert routing_accuracy(renamed, regions) == 1
    # One expert for two regions gets the larger of them only.
    assert routing_accuracy(torch.tensor([[1], [1], [1], [1], [1], [0]]), regions) == 4 / 6
    # Two experts for one region: one of them is matched.
    assert routing_accuracy(torch.tensor([[1], [1], [3], [0], [0], [4]]), regions) == 5 / 6
    # Greedy matching would take (a, r) with 3 and leave 1; the best sum is 2 + 2.
    paths = torch.tensor([0, 0, 0, 0, 0, 1, 1]).unsqueeze(1)
    assert routing_accuracy(paths, torch.tensor([1, 1, 1, 2, 2, 1, 1])) == 4 / 7


def points(side=4, features=2, number=4000):
    return side * torch.rand(number, features, generator=generator())


def test_bumps_match_the_formula_of_the_figure():
    x = torch.tensor([[0.5, 2.25]])
    expected = [[1 * 0.5**2 * 0.5**2, 3 * 0.25**2 * 0.75**2]]
    torch.testing.assert_close(Bumps(3, 2)(x), torch.tensor(expected))
    product = build_target("bump_product", 2, 3, generator())
    torch.testing.assert_close(
        product(x), torch.tensor([[(1 + expected[0][0]) * (1 + expected[0][1])]])
    )


def test_sine_cosine_matches_the_formula_of_the_paper():
    found = build_target("sine_cosine", 2, 1, generator())(torch.tensor([[0.6, 0.8]]))
    assert float(found) == pytest.approx(math.sin(3.0) + math.cos(2.4))


@pytest.mark.parametrize(
    ("name", "regions"), [("jumps", 16), ("shells", 4), ("checkerboard", 2), ("bumps", 16)]
)
def test_targets_have_the_documented_number_of_equally_large_pieces(name, regions):
    found = build_target(name, 2, 4, generator()).regions(points())
    share = torch.bincount(found) / len(found)
    assert len(share) == regions
    if name != "shells":
        assert (share - 1 / regions).abs().max() < 0.03
    else:  # the corners belong to the last one
        inner = math.pi / 16
        assert (share[:3] - inner).abs().max() < 0.03


@pytest.mark.parametrize("name", ["jumps", "shells", "checkerboard"])
def test_in_each_region_the_target_is_affine(name):
    target = build_target(name, 2, 3, generator())
    x = points(3)
    design = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    values, regions = target(x), target.regions(x)
    for region in regions.unique():
        rows = regions == region
        fit = torch.linalg.lstsq(design[rows], values[rows]).solution
        torch.testing.assert_close(design[rows] @ fit, values[rows], rtol=0, atol=1e-4)
    whole = torch.linalg.lstsq(design, values).solution
    assert (design @ whole - values).abs().max() > 0.5


def test_smooth_has_the_same_variance_and_correlation_in_every_dimension():
    for features in (1, 16):
        x = torch.zeros(1, features)
        y = x.clone()
        y[0, 0] = 0.5
        values = []
        for seed in range(800):
            target = build_target("smooth", features, 1, generator(seed))
            values.append([float(target(x)), float(target(y))])
        a, b = torch.tensor(values).T
        assert a.mean() == pytest.approx(0, abs=0.12)
        assert a.var() == pytest.approx(1, abs=0.2)
        assert (a * b).mean() == pytest.approx(math.exp(-0.5), abs=0.15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("waves", 2, 1), "target='waves': expected 'smooth', 'sine_cosine'"),
        (("bumps", 2, 0), "pieces=0: expected at least 1"),
        (("sine_cosine", 1, 1), "at least 2 coordinates"),
    ],
)
def test_an_unknown_target_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_target(*arguments, generator())
