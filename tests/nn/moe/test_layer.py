"""Gates, expert weights, losses, and invalid arguments of a layer."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from lightning_plugins.nn.moe import (
    MoELayer,
    Routing,
    build_gate,
    expert_load,
    limit_capacity,
    load_balancing_loss,
    route,
    router_z_loss,
)
from lightning_plugins.nn.moe.dispatch import dense_linear
from lightning_plugins.nn.moe.routers import find_routers, recorded_routings, selection_bias

SMALL = {"in_features": 6, "out_features": 2, "num_experts": 4, "hidden_features": 8}


def logits(tokens=50, experts=4):
    return torch.randn(tokens, experts, generator=torch.Generator().manual_seed(0))


def test_softmax_topk_weights_sum_to_one():
    routing = route(logits(), 2, "softmax_topk")
    torch.testing.assert_close(routing.weights.sum(dim=1), torch.ones(50))


def test_softmax_all_weights_are_the_probabilities_of_the_best_experts():
    routing = route(logits(), 2, "softmax_all")
    probabilities = logits().softmax(dim=1).sort(dim=1, descending=True).values
    torch.testing.assert_close(routing.weights, probabilities[:, :2])


def test_selecting_every_expert_makes_both_weightings_equal():
    one, other = (route(logits(), 4, name) for name in ("softmax_all", "softmax_topk"))
    torch.testing.assert_close(one.weights, other.weights)


def test_softmax_topk_with_one_expert_gives_the_gate_no_gradient():
    scores = logits().requires_grad_()
    route(scores, 1, "softmax_topk").weights.square().sum().backward()
    assert scores.grad.abs().max() == 0
    scores.grad = None
    route(scores, 1, "softmax_all").weights.square().sum().backward()
    assert scores.grad.abs().max() > 0


def test_sigmoid_weights_are_those_of_deepseek_v3():
    scores = logits().sigmoid()
    best = scores.sort(dim=1, descending=True).values[:, :2]
    torch.testing.assert_close(route(logits(), 2, "sigmoid_all").weights, best)
    normalized = best / best.sum(dim=1, keepdim=True)
    torch.testing.assert_close(route(logits(), 2, "sigmoid_topk").weights, normalized)


@pytest.mark.parametrize("weighting", ["softmax_all", "sigmoid_topk"])
def test_a_selection_bias_changes_the_selection_but_not_the_weights(weighting):
    bias = torch.tensor([2.0, 0.0, 2.0, 0.0])
    routing = route(logits(), 2, weighting, bias)
    assert routing.experts.sort(dim=1).values.unique(dim=0).tolist() == [[0, 2]]
    kind = logits().softmax(dim=1) if weighting == "softmax_all" else logits().sigmoid()
    expected = kind.gather(1, routing.experts)
    if weighting == "sigmoid_topk":
        expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(routing.weights, expected)
    layer = MoELayer(**SMALL, top_k=2, gate_weighting=weighting, selection_bias=True)
    layer.selection.expert_bias.copy_(bias)
    tokens = torch.randn(9, 6)
    assert layer.route(tokens).experts.sort(dim=1).values.unique(dim=0).tolist() == [[0, 2]]
    routers = find_routers(layer)
    (name,) = routers
    assert torch.equal(selection_bias(layer, name), bias)
    with recorded_routings(layer) as recorded:
        _, own = layer.mix(tokens)
    assert torch.equal(recorded[0].experts, own.experts)
    assert torch.equal(recorded[0].weights, own.weights)


def test_an_expert_accepts_first_choices_in_order_up_to_its_capacity():
    experts = torch.tensor([[0, 1], [0, 2], [0, 1], [1, 0]])
    weights = torch.full((4, 2), 0.5)
    routing = limit_capacity(Routing(torch.zeros(4, 4), experts, weights), 1.0)  # 2 per expert
    dropped = [[False, False], [False, False], [True, True], [False, True]]
    assert routing.dropped.tolist() == dropped
    assert torch.equal(routing.weights == 0, routing.dropped)
    ample = limit_capacity(Routing(torch.zeros(4, 4), experts, weights), 4.0)
    assert not ample.dropped.any()
    one_for_all = Routing(torch.zeros(100, 10), torch.zeros(100, 1).long(), torch.ones(100, 1))
    assert (~limit_capacity(one_for_all, 1.1).dropped).sum() == 11  # 1.1 * 100 / 10 in floats: 12


def test_a_layer_without_tokens_has_neither_load_nor_loss():
    _, routing = MoELayer(**SMALL, capacity_factor=1.0).mix(torch.zeros(0, 6))
    assert routing.dropped.shape == (0, 1)
    assert expert_load(routing).sum() == load_balancing_loss(routing) == router_z_loss(routing) == 0


@pytest.mark.parametrize("backend", ["dense", "loop", "grouped_mm"])
def test_dropped_tokens_contribute_only_through_the_shared_expert(backend):
    torch.manual_seed(0)
    options = {"num_experts": 4, "hidden_features": 8, "shared_features": 8, "backend": backend}
    layer = MoELayer(8, 8, **options, capacity_factor=0.5)
    tokens = torch.randn(64, 8)
    outputs, routing = layer.mix(tokens)
    assert 0.5 <= routing.dropped.float().mean() < 0.75
    whole = MoELayer(8, 8, **options)
    whole.load_state_dict(layer.state_dict())
    expected = whole(tokens)
    dropped = routing.dropped.all(dim=1)
    torch.testing.assert_close(outputs[~dropped], expected[~dropped])
    shared = layer.shared(tokens[None], dense_linear)[0]
    torch.testing.assert_close(outputs[dropped], shared[dropped])


def test_half_precision_scores_are_weighted_in_single_precision():
    assert route(logits().bfloat16(), 2, "softmax_all").weights.dtype == torch.float32


def test_a_linear_gate_ignores_scale_and_an_affine_gate_does_not():
    torch.manual_seed(0)
    points = torch.randn(200, 3)
    for name, is_blind in (("linear", True), ("affine", False)):
        gate = build_gate(name, 3, 5, 8)
        same = gate(points).argmax(dim=1) == gate(9 * points).argmax(dim=1)
        assert same.all() == is_blind


def test_a_cosine_gate_scores_by_angle():
    torch.manual_seed(0)
    gate = build_gate("cosine", 6, 4, 3)
    points = torch.randn(10, 6)
    projected = gate.projection(points)
    expected = cosine_similarity(projected[:, None], gate.directions[None], dim=-1) / 0.07
    torch.testing.assert_close(gate(points), expected)
    torch.testing.assert_close(gate(points), gate(7 * points))


def test_losses_are_minimal_at_balance():
    uniform = torch.zeros(8, 4)
    experts = torch.arange(8).remainder(4).unsqueeze(1)
    balanced = Routing(uniform, experts, torch.full((8, 1), 0.25))
    assert load_balancing_loss(balanced) == 1
    assert router_z_loss(balanced) == pytest.approx(math.log(4) ** 2)
    assert expert_load(balanced).tolist() == [0.25] * 4


def test_losses_and_load_are_computed_in_single_precision():
    scores = logits(tokens=20_000)
    routing, half = (route(s, 1, "softmax_all") for s in (scores, scores.bfloat16()))
    for measured in (expert_load, load_balancing_loss, router_z_loss):
        assert measured(half).dtype == torch.float32
        torch.testing.assert_close(measured(half), measured(routing), rtol=2e-3, atol=2e-3)


def test_the_balancing_loss_at_collapse_is_the_number_of_experts():
    certain = torch.tensor([[30.0, 0, 0, 0]]).expand(8, 4)
    collapsed = route(certain, 1, "softmax_all")
    assert load_balancing_loss(collapsed) == pytest.approx(4)
    assert expert_load(collapsed).tolist() == [1, 0, 0, 0]


def test_the_balancing_loss_reduces_the_largest_load():
    scores = (logits() + torch.tensor([2.0, 0, 0, 0])).requires_grad_()
    load_balancing_loss(route(scores, 1, "softmax_all")).backward()
    assert scores.grad.sum(dim=0).argmax() == 0


def test_one_expert_is_a_perceptron_without_a_gate():
    torch.manual_seed(0)
    layer = MoELayer(**(SMALL | {"num_experts": 1}))
    tokens = torch.randn(5, 6)
    (first, second), (shift, last) = layer.experts.weights, layer.experts.biases
    hidden = (tokens @ first[0] + shift[0]).relu()
    torch.testing.assert_close(layer(tokens), hidden @ second[0] + last[0])
    assert layer.gate is None


def test_active_parameters_are_those_of_the_selected_experts():
    expert = 6 * 8 + 8 + 8 * 2 + 2
    layer = MoELayer(**SMALL, top_k=2, shared_features=3)
    shared = 6 * 3 + 3 + 3 * 2 + 2
    assert layer.num_active_parameters == 2 * expert + 4 * 6 + shared
    assert sum(p.numel() for p in layer.parameters()) == 4 * expert + 4 * 6 + shared


def test_active_parameters_exclude_the_decoder():
    layer = MoELayer(**SMALL, top_k=2, encoder_features=3)
    expert = 6 * 3 + 3 * 8 + 8 + 8 * 2 + 2
    assert layer.num_active_parameters == 2 * expert + 4 * 6


def test_an_encoder_of_full_rank_reconstructs_its_tokens():
    torch.manual_seed(0)
    layer = MoELayer(**SMALL, encoder_features=6, backend="loop")
    with torch.no_grad():
        layer.experts.decoder.copy_(torch.linalg.inv(layer.experts.encoder))
    tokens = torch.randn(30, 6)
    assert layer.reconstruction_error(tokens, layer.route(tokens)) < 1e-8


def test_the_reconstruction_error_uses_the_selected_experts():
    torch.manual_seed(0)
    layer = MoELayer(**SMALL, encoder_features=2, top_k=2)
    tokens = torch.randn(30, 6)
    routing = layer.route(tokens)
    expected = torch.stack(
        [
            (token @ layer.experts.encoder[e] @ layer.experts.decoder[e] - token).square().mean()
            for token, chosen in zip(tokens, routing.experts, strict=True)
            for e in chosen
        ]
    ).mean()
    torch.testing.assert_close(layer.reconstruction_error(tokens, routing), expected)


def test_a_layer_matches_the_qwen2_moe_block_of_transformers():
    modeling = pytest.importorskip("transformers.models.qwen2_moe.modeling_qwen2_moe")
    from transformers import Qwen2MoeConfig

    config = Qwen2MoeConfig(
        hidden_size=16,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=24,
        num_experts=6,
        num_experts_per_tok=2,
        experts_implementation="eager",
    )
    torch.manual_seed(0)
    block = modeling.Qwen2MoeSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer = MoELayer(
        *(16, 16, 6, 8),
        top_k=2,
        activation="swiglu",
        bias=False,
        shared_features=24,
        shared_gate=True,
    )
    with torch.no_grad():
        layer.gate.weight.copy_(block.gate.weight)
        layer.experts.weights[0].copy_(block.experts.gate_up_proj.mT)
        layer.experts.weights[1].copy_(block.experts.down_proj.mT)
        shared = block.shared_expert
        widened = torch.cat([shared.gate_proj.weight, shared.up_proj.weight])
        layer.shared.weights[0].copy_(widened.T)
        layer.shared.weights[1].copy_(shared.down_proj.weight.T)
        layer.shared_gate.weight.copy_(block.shared_expert_gate.weight)
    tokens = torch.randn(3, 7, 16)
    torch.testing.assert_close(layer(tokens), block(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k": 5}, r"top_k=5: expected 1 to num_experts=4"),
        ({"top_k": 0}, r"top_k=0"),
        ({"gate": "spline"}, r"gate='spline': expected 'linear', 'affine', 'mlp' or 'cosine'"),
        ({"gate_weighting": "softmax"}, r"expected 'softmax_all', 'softmax_topk'"),
        ({"gate_weighting": "softmax_topk"}, r"gets no gradient: use gate_weighting='softmax_all'"),
        ({"activation": "gelu"}, r"expected 'relu' or 'swiglu'"),
        ({"num_layers": 1}, r"num_layers=1: expected at least 2"),
        ({"num_experts": 0}, r"num_experts=0: expected at least 1"),
        ({"encoder_features": 7}, r"encoder_features=7: expected 1 to in_features=6"),
    ],
)
def test_invalid_arguments_are_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        MoELayer(**(SMALL | changes))


def test_a_frozen_gate_can_have_the_constant_weight_one():
    layer = MoELayer(**SMALL, gate_weighting="softmax_topk", train_gate=False)
    assert not layer.gate.weight.requires_grad
    assert layer.route(torch.randn(5, 6)).weights.flatten().tolist() == [1] * 5
