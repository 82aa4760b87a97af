"""Adam-mini against the published rule, implemented per tensor, and its memory."""

import copy
import math

import pytest
import torch
from small_transformers import HEAD_DIM, largest_difference, train, transformer
from torch import nn
from torch.optim import AdamW

from lightning_plugins.optimizers import AdamMini, BlockwiseAdamMini

LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.95), 1e-8, 0.1


def is_norm(name):
    return any(part.startswith("ln_") or "norm" in part for part in name.split("."))


def mean_square_of_its_block(name, gradient, head_dim, released):
    """Choose the block by name; Hugging Face's Conv1D weights are (inputs, outputs)."""
    square = gradient**2
    if released and name.endswith("bias"):
        return square
    if is_norm(name) or (released and ".wpe." in name):
        return torch.full_like(square, float(square.mean()))
    if gradient.dim() == 1:
        return square
    if gradient.dim() == 3:  # a stack of experts
        return square.mean(dim=2, keepdim=True).expand_as(square)
    is_conv1d = any(part in name for part in ("c_attn", "c_proj", "c_fc"))
    rows = square.t() if is_conv1d else square
    if "c_attn" in name:
        q, k, v = rows.chunk(3)
        shared = torch.cat([by_head(q, head_dim), by_head(k, head_dim), by_row(v)])
    elif "q_proj" in name or "k_proj" in name:
        shared = by_head(rows, head_dim)
    else:
        shared = by_row(rows)
    return shared.t() if is_conv1d else shared


def by_row(square):
    return square.mean(dim=1, keepdim=True).expand_as(square)


def by_head(square, head_dim):
    heads = square.reshape(-1, head_dim * square.shape[1])
    return heads.mean(dim=1, keepdim=True).expand_as(heads).reshape(square.shape)


class Published:
    def __init__(self, model, head_dim, released):
        self.model, self.head_dim, self.released, self.steps = model, head_dim, released, 0
        self.first = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
        self.second = {n: torch.zeros_like(p) for n, p in model.named_parameters()}

    def zero_grad(self):
        self.model.zero_grad()

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            closure()
        self.steps += 1
        for name, parameter in self.model.named_parameters():
            gradient = parameter.grad
            if gradient is None:
                continue
            square = mean_square_of_its_block(name, gradient, self.head_dim, self.released)
            self.first[name] = BETAS[0] * self.first[name] + (1 - BETAS[0]) * gradient
            self.second[name] = BETAS[1] * self.second[name] + (1 - BETAS[1]) * square
            first = self.first[name] / (1 - BETAS[0] ** self.steps)
            second = self.second[name] / (1 - BETAS[1] ** self.steps)
            undecayed = self.released and (is_norm(name) or name.endswith("bias"))
            decay = 0 if undecayed else DECAY
            parameter -= LR * (first / (second.sqrt() + EPS) + decay * parameter)


@pytest.mark.scale(plugin="AdamMini", strategy="one device")
@pytest.mark.parametrize(
    ("architecture", "released"),
    [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False), ("qwen2_moe", True)],
)
def test_the_update_equals_the_rule(architecture, released):
    head_dim = HEAD_DIM[architecture]
    by_hand = transformer(architecture, torch.float64)
    ours = transformer(architecture, torch.float64)
    train(by_hand, Published(by_hand, head_dim, released), 10)
    settings = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY}
    arguments = {} if released else {"released": False}
    train(ours, AdamMini(ours.named_parameters(), head_dim=head_dim, **settings, **arguments), 10)
    assert largest_difference(by_hand, ours) < 1e-12


def test_a_checkpoint_without_the_rule_continues_as_it_was_trained():
    straight, resumed = transformer("gpt2"), transformer("gpt2")
    settings = {"lr": LR, "weight_decay": DECAY, "released": False}
    before = AdamMini(straight.named_parameters(), head_dim=8, **settings)
    train(straight, before, 3)
    resumed.load_state_dict(straight.state_dict())
    state = copy.deepcopy(before.state_dict())
    del state["param_groups"][0]["released"]
    after = AdamMini(resumed.named_parameters(), head_dim=8)
    after.load_state_dict(state)
    train(straight, before, 3, first=3)
    train(resumed, after, 3, first=3)
    assert largest_difference(straight, resumed) == 0


@pytest.mark.parametrize(
    ("options", "positions"), [({}, "positions"), ({"released": False}, "row@0")]
)
def test_the_blockwise_optimizer_follows_the_same_rule(options, positions):
    optimizer = BlockwiseAdamMini(transformer("gpt2").named_parameters(), head_dim=8, **options)
    partitions = {
        name: partition
        for group in optimizer.param_groups
        for name, partition in zip(group["param_names"], group["partitions"], strict=True)
    }
    assert partitions["transformer.wpe.weight"] == positions
    assert partitions["transformer.wte.weight"] == "row@0"


def state_bytes(optimizer):
    return sum(tensor.nbytes for state in optimizer.state.values() for tensor in state.values())


def test_the_state_takes_half_the_memory_of_adam():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=512,
    )
    sizes = {}
    for cls, arguments in ((AdamMini, {"head_dim": 64}), (AdamW, {})):
        model = LlamaForCausalLM(config)
        optimizer = cls(model.named_parameters(), **arguments)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        sizes[cls] = state_bytes(optimizer) / sum(p.numel() for p in model.parameters())
    assert sizes[AdamMini] < 4.2
    assert sizes[AdamW] > 8


def test_a_checkpoint_resumes_exactly():
    straight, resumed = transformer("gpt2"), transformer("gpt2")
    train(straight, AdamMini(straight.named_parameters(), head_dim=8, lr=LR), 6)
    before = AdamMini(resumed.named_parameters(), head_dim=8, lr=LR)
    train(resumed, before, 3)
    after = AdamMini(resumed.named_parameters(), head_dim=8, lr=1.0)
    after.load_state_dict(before.state_dict())
    train(resumed, after, 3, first=3)
    assert largest_difference(straight, resumed) == 0


def test_each_parameter_group_uses_its_own_settings():
    weight = nn.Linear(4, 4, bias=False)
    optimizer = AdamMini([("q_proj.weight", weight.weight)], head_dim=2, patterns={"q_proj": "qk"})
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert optimizer.param_groups[0]["partitions"] == ["head@0"]
    weight.weight.grad = torch.ones(4, 4)
    optimizer.step()
    # All gradients are alike, so the first step is one of Adam's: the learning rate, and the decay.
    assert math.isclose(float(optimizer.state[weight.weight]["exp_avg_sq"][0]), 1e-3, rel_tol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head_dim": 0}, "head_dim=0"),
        ({"head_dim": 5}, "head_dim=5: .*q_proj.* 16 rows"),
        ({"head_dim": 4, "lr": -1}, "lr=-1"),
        ({"head_dim": 4, "eps": float("nan")}, "eps=nan"),
        ({"head_dim": 4, "betas": (0.9, 1.0)}, "betas="),
    ],
)
def test_invalid_arguments_raise_an_error_that_names_them(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdamMini(transformer("llama").named_parameters(), **arguments)
