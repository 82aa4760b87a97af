"""The difference-aware module against explicit formulas and against the released code."""

import importlib.util
import math
import os

import pytest
import torch

from lightning_plugins.nn.change import DifferenceAwareIntegration
from lightning_plugins.nn.change.difference_aware import sine_positions
from lightning_plugins.nn.change.released_weights import from_released

RELEASED_CODE = "LIGHTNING_PLUGINS_CCEXPERT_CODE"


def pair_of_levels(num_levels=3, batch=2, tokens=9, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        [torch.randn(batch, tokens, dim, generator=generator) for _ in range(num_levels)]
        for _ in range(2)
    )


def make(seed=0, **arguments):
    torch.manual_seed(seed)
    return DifferenceAwareIntegration(dim=16, num_heads=2, **arguments)


def test_positions_equal_the_formula_of_detr():
    found = sine_positions(9, 8)
    for row in range(3):
        for column in range(3):
            for half, place in enumerate((row, column)):
                angle = (place + 0.5) / 3 * 2 * math.pi
                for channel in range(4):
                    wave = math.sin if channel % 2 == 0 else math.cos
                    expected = wave(angle / 10000 ** (2 * (channel // 2) / 4))
                    got = found[3 * row + column, 4 * half + channel].item()
                    assert got == pytest.approx(expected, abs=2e-6)


def attention_by_hand(attention, queries, keys, values):
    """Compute the attention head by head, with an explicit softmax."""
    projected = [attention.queries(queries), attention.keys(keys), attention.values(values)]
    width = queries.shape[-1] // attention.num_heads
    heads = []
    for start in range(0, queries.shape[-1], width):
        q, k, v = (tensor[..., start : start + width] for tensor in projected)
        scores = torch.exp(q @ k.transpose(1, 2) / width**0.5)
        heads.append(scores / scores.sum(dim=-1, keepdim=True) @ v)
    return attention.output(torch.cat(heads, dim=-1))


def one_level_by_hand(module, a, b):
    """Compute the refined (change, a, b) of one level, step by step as specified in the paper."""
    pe = sine_positions(a.shape[1], a.shape[2])
    change = None
    for layer in module.layers:
        w1, w2 = module.change_initialization.relevance, module.change_initialization.mixing
        a1 = a * torch.sigmoid(w1(torch.cat([a, b], -1)))
        b1 = b * torch.sigmoid(w1(torch.cat([b, a], -1)))
        initial = w2(torch.cat([a1, b1, a1 - b1], -1))
        q = initial if change is None else change + initial
        q = layer.norm_change(q + attention_by_hand(layer.change_attention, q + pe, q + pe, q))
        key_a, key_b = a + pe + layer.flag_before, b + pe + layer.flag_after
        placed = q + pe + layer.flag_change
        found = attention_by_hand(
            layer.change_to_images,
            placed,
            torch.cat([key_a, key_b, placed], 1),
            torch.cat([a, b, q], 1),
        )
        q = layer.norm_images(q + found)
        q = layer.norm_feed_forward(q + layer.feed_forward(q))
        placed = q + pe + layer.flag_change
        refined = [
            key
            + attention_by_hand(
                layer.images_to_change, key, torch.cat([key, placed], 1), torch.cat([image, q], 1)
            )
            for key, image in ((key_a, a), (key_b, b))
        ]
        change, (a, b) = q, refined
    return change, a, b


def test_the_module_equals_the_published_formulas():
    module = make(zero_gate=False)
    before, after = pair_of_levels()
    with torch.no_grad():
        levels = [one_level_by_hand(module, a, b) for a, b in zip(before, after, strict=True)]
        gates = [
            torch.sigmoid(module.level_weight(torch.cat([a, b, change], -1).mean(1)))[:, None]
            for change, a, b in levels
        ]
        total = sum(gates) + 1e-6
        change, a, b = (
            sum(gate * level[part] for gate, level in zip(gates, levels, strict=True)) / total
            for part in range(3)
        )
        found = module(before, after)
    for got, expected in zip(found, (before[-1] + a, after[-1] + b, change), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_new_gated_module_returns_the_last_level_bit_for_bit_and_its_gate_has_gradients():
    module = make(zero_gate=True)
    before, after = pair_of_levels()
    a, b, _ = module(before, after)
    assert torch.equal(a, before[-1])
    assert torch.equal(b, after[-1])
    (a * torch.randn(a.shape)).sum().backward()
    assert module.output_gate.grad.abs().min() > 0


@pytest.mark.parametrize(("dim", "expected"), [(288, 0.04), (72, 0.08)])
def test_initial_weights_scale_with_the_number_of_channels(dim, expected):
    module = DifferenceAwareIntegration(dim, num_layers=1, num_heads=4)
    for layer in (module.change_initialization.mixing, module.layers[0].images_to_change.output):
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_without_the_unused_parameters_every_parameter_has_a_gradient():
    module = make(zero_gate=False)
    before, after = pair_of_levels()
    a, b, _ = module(before, after)
    (a.square().sum() + b.sum()).backward()
    assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_the_order_of_a_pair_matters_and_pairs_do_not_affect_each_other():
    module = make(zero_gate=False).eval()
    before, after = pair_of_levels()
    a, b, change = module(before, after)
    turned = module(after, before)
    assert not torch.allclose(turned[1], a, atol=1e-3)
    alone = module([level[:1] for level in before], [level[:1] for level in after])
    for whole, single in zip((a, b, change), alone, strict=True):
        torch.testing.assert_close(whole[:1], single)


def test_the_numbers_of_parameters_equal_the_released_module():
    with torch.device("meta"):
        whole = DifferenceAwareIntegration(zero_gate=False, keep_unused=True)
        lean = DifferenceAwareIntegration(zero_gate=False)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(whole) == pytest.approx(70.41e6, rel=1e-4)
    unused = 1152 * 1152 + 1152 + 4 * 1152 * 1152 + 4 * 1152 + 2 * 2 * 1152
    assert count(whole) - count(lean) == unused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 18, "num_heads": 2}, "dim=18: expected a multiple of 4"),
        ({"dim": 16, "num_heads": 3}, "num_heads=3: expected a divisor of dim=16"),
        ({"dim": 16, "num_layers": 0}, "num_layers=0"),
    ],
)
def test_the_error_names_a_size_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        DifferenceAwareIntegration(**arguments)


def test_levels_of_different_shapes_raise_an_error():
    before, after = pair_of_levels()
    with pytest.raises(ValueError, match="the same number of levels for both images"):
        make()(before, after[:2])
    with pytest.raises(ValueError, match="num_tokens=8: expected a square grid"):
        make()([level[:, :8] for level in before], [level[:, :8] for level in after])


@pytest.mark.skipif(
    RELEASED_CODE not in os.environ, reason=f"set {RELEASED_CODE} to the path of cc_expert.py"
)
@pytest.mark.parametrize("keep_unused", [False, True])
def test_the_outputs_equal_those_of_the_released_code(keep_unused):
    spec = importlib.util.spec_from_file_location("cc_expert", os.environ[RELEASED_CODE])
    released = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(released)
    sizes = {"embedding_dim": 256, "mlp_dim": 1024}
    theirs = released.CC_expert(type("Arguments", (), {"cc_expert_args": sizes}))
    ours = DifferenceAwareIntegration(256, zero_gate=False, keep_unused=keep_unused)
    ours.load_state_dict(from_released(theirs.state_dict(), keep_unused))
    levels = pair_of_levels(4, 2, 16, 256)
    with torch.no_grad():
        for got, expected in zip(ours(*levels), theirs(*levels), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
