"""Blockwise optimizers against the plain optimizer, and against one optimizer per block."""

import logging

import pytest
import torch
from small_transformers import HEAD_DIM, largest_difference, same_weights, train, transformer
from torch import nn
from torch.optim import AdamW

from lightning_plugins.optimizers import (
    AdamMini,
    Blockwise,
    BlockwiseAdamMini,
    BlockwiseAdamW,
    BlockwiseLion,
    GradPower,
    Lion,
    gradpower,
)
from lightning_plugins.optimizers.blocks import blocks_of

MULTIPLIERS = {"embedding": 10, "qk": 8, "ffn": 6, "vo": 4, "norm": 1, "head": 10, "router": 1}
ARCHITECTURES = ("gpt2", "llama", "qwen2_moe")
CLASSES = {
    "AdamW": (AdamW, BlockwiseAdamW),
    "Lion": (Lion, BlockwiseLion),
    "AdamMini": (AdamMini, BlockwiseAdamMini),
}


def occurring(model):
    return {block for one in blocks_of(model.named_parameters(), "T") for block in one.blocks}


def arguments_of(cls, architecture):
    return {"head_dim": HEAD_DIM[architecture]} if issubclass(cls, AdamMini) else {}


@pytest.mark.scale(plugin="{classes[1].__name__}", strategy="one device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
def test_multipliers_of_one_equal_the_plain_optimizer_bit_for_bit(classes, architecture, dtype):
    steps = 50 if architecture == "llama" else 10
    plain, ours = transformer(architecture, dtype), transformer(architecture, dtype)
    arguments = arguments_of(classes[0], architecture)
    train(plain, classes[0](plain.named_parameters(), lr=1e-2, **arguments), steps)
    ones = dict.fromkeys(occurring(ours), 1.0)
    optimizer = classes[1](ours.named_parameters(), lr=1e-2, multipliers=ones, **arguments)
    train(ours, optimizer, steps)
    assert same_weights(plain, ours)


class SeparateSlices:
    """An AdamW for every block and every slice of a fused tensor, each a separate tensor."""

    def __init__(self, model, lr):
        self.model, self.parts, self.optimizers = model, [], []
        for one in blocks_of(model.named_parameters(), "Test"):
            for index, (block, part) in enumerate(one.slices(one.parameter.detach())):
                copied = nn.Parameter(part.clone())
                self.parts.append((one, index, copied))
                self.optimizers.append(AdamW([copied], lr=lr * MULTIPLIERS[block]))

    def zero_grad(self):
        self.model.zero_grad()

    def step(self, closure):
        closure()
        for (one, index, copied), optimizer in zip(self.parts, self.optimizers, strict=True):
            if one.parameter.grad is None:
                continue
            copied.grad = one.slices(one.parameter.grad)[index][1].clone()
            optimizer.step()
            one.slices(one.parameter.detach())[index][1].copy_(copied.detach())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_block_and_slice_is_updated_as_by_a_separate_optimizer(architecture):
    apart = transformer(architecture, torch.float64)
    ours = transformer(architecture, torch.float64)
    train(apart, SeparateSlices(apart, 1e-3), 20)
    train(ours, BlockwiseAdamW(ours.named_parameters(), lr=1e-3), 20)
    assert largest_difference(apart, ours) < 1e-12


def test_the_groups_are_named_and_have_the_rates_of_their_blocks():
    optimizer = BlockwiseAdamW(transformer("qwen2_moe").named_parameters(), lr=1e-3)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({block: 1e-3 * m for block, m in MULTIPLIERS.items()})


def test_the_grouping_is_logged_as_a_table(caplog):
    model = transformer("gpt2")
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        BlockwiseAdamW(model.named_parameters(), lr=1e-3)
    rows = {
        line.split()[0]: int(line.split()[2].replace(",", ""))
        for line in caplog.text.splitlines()
        if line.split()[0] in MULTIPLIERS
    }
    assert set(rows) == {"embedding", "qk", "vo", "ffn", "norm"}
    assert sum(rows.values()) == sum(p.numel() for p in model.parameters())
    # Two layers: weights and biases of queries and keys; of values and outputs.
    assert (rows["qk"], rows["vo"]) == (2 * 2 * (16 * 16 + 16), 2 * 2 * (16 * 16 + 16))


def test_weight_decay_applies_to_all_blocks_except_the_excluded_ones():
    model = transformer("llama")
    optimizer = BlockwiseAdamW(model.named_parameters(), weight_decay=0.1, no_decay_blocks=["norm"])
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays.pop("norm") == 0
    assert set(decays.values()) == {0.1}


def test_frozen_parameters_are_not_updated():
    model = transformer("llama")
    frozen = model.model.embed_tokens.weight.requires_grad_(False)
    before = frozen.clone()
    train(model, BlockwiseAdamW(model.named_parameters(), lr=1e-2), 2)
    assert torch.equal(frozen, before)


@pytest.mark.scale(plugin="GradPower", strategy="one device")
def test_grad_power_and_blockwise_combine_in_both_orders():
    one, other = transformer("gpt2"), transformer("gpt2")
    train(one, gradpower(BlockwiseAdamW, 1.2)(one.named_parameters(), lr=1e-3), 5)
    form = GradPower(
        other.named_parameters(), base=lambda params: BlockwiseAdamW(params, lr=1e-3), p=1.2
    )
    train(other, form, 5)
    assert isinstance(form, Blockwise)
    assert same_weights(one, other)


@pytest.mark.parametrize("rate", [0.0, torch.tensor(0.0)], ids=["float", "tensor"])
def test_a_learning_rate_of_zero_changes_nothing(rate):
    model, untouched = transformer("gpt2"), transformer("gpt2")
    train(model, BlockwiseAdamW(model.named_parameters(), lr=rate), 2)
    assert same_weights(model, untouched)


def test_tensor_rates_give_the_same_update_of_fused_projections():
    by_float, by_tensor = (transformer("gpt2", torch.float64) for _ in range(2))
    rate = torch.tensor(1e-3, dtype=torch.float64)
    train(by_float, BlockwiseAdamW(by_float.named_parameters(), lr=1e-3), 10)
    train(by_tensor, BlockwiseAdamW(by_tensor.named_parameters(), lr=rate), 10)
    assert largest_difference(by_float, by_tensor) < 1e-12
    plain, ones = transformer("gpt2"), transformer("gpt2")
    multipliers = dict.fromkeys(occurring(ones), 1.0)
    train(plain, AdamW(plain.parameters(), lr=torch.tensor(1e-2)), 10)
    rate = torch.tensor(1e-2)
    train(ones, BlockwiseAdamW(ones.named_parameters(), lr=rate, multipliers=multipliers), 10)
    assert same_weights(plain, ones)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multipliers": {"qk": 0}}, r"multipliers\['qk'\]=0.*requires_grad"),
        ({"multipliers": {"qk": float("inf")}}, r"multipliers\['qk'\]=inf"),
        ({"multipliers": {"kq": 2}}, "'kq', which is not a block.*qk"),
        ({"multipliers": {"router": 2}}, "'router', but BlockwiseAdamW received no such parameter"),
        ({"no_decay_blocks": ["bias"]}, "'bias', which is not a block"),
        ({"lr": -1.0}, "learning rate"),
    ],
)
def test_invalid_arguments_raise_an_error_that_names_them(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseAdamW(transformer("llama").named_parameters(), **arguments)
