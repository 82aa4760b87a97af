"""Overhead of a step: graph breaks, recompilations and device synchronization."""

import functools

import pytest
import torch
import torch._dynamo
from operation_count import Operations
from small_transformers import largest_difference, transformer
from torch.optim import AdamW

from lightning_plugins.optimizers import (
    AdamMini,
    AdamWPower,
    BlockwiseAdamW,
    BlockwiseLion,
    MuonAdamW,
    MuonPower,
    SGDPower,
    gradpower,
)

# PyTorch's optimizers break the graph around their update on purpose, with this call.
OF_PYTORCH = "torch._dynamo.graph_break()"


def give_gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


# Graphs: the transform; PyTorch's update, Muon's apart from AdamW's; slices of fused projections
# before and after it. Lion and Adam-mini, in one graph, are compiled for their first step and for
# all others.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "architecture", "wanted_graphs", "tolerance"),
    [
        (AdamW, "llama", 1, 1e-5),
        (AdamWPower, "llama", 2, 1e-5),
        (functools.partial(AdamWPower, compile=True), "llama", 2, 1e-5),
        (BlockwiseAdamW, "llama", 1, 1e-5),
        (BlockwiseAdamW, "gpt2", 3, 1e-5),
        (BlockwiseLion, "llama", 2, 1e-5),
        # Newton-Schulz iterates in bfloat16, which PyTorch's own Muon rounds otherwise too.
        (functools.partial(MuonPower, p=1.1), "llama", 4, 2e-3),
        (functools.partial(SGDPower, p=1.1), "llama", 2, 1e-5),
        (functools.partial(AdamMini, head_dim=8), "llama", 2, 1e-5),
        (functools.partial(AdamMini, head_dim=8), "gpt2", 2, 1e-5),
    ],
    ids=[
        "AdamW",
        "AdamWPower",
        "compile=True",
        "Blockwise",
        "fused projections",
        "Lion",
        "Muon",
        "SGD",
        "Adam-mini",
        "Adam-mini, fused projections",
    ],
)
def test_a_compiled_step_adds_no_graph_breaks_and_agrees_with_eager(
    make, architecture, wanted_graphs, tolerance
):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    models = eager, compiled = transformer(architecture), transformer(architecture)
    optimizers = [make(m.named_parameters(), lr=torch.tensor(1e-2)) for m in models]
    steps = (optimizers[0].step, torch.compile(optimizers[1].step))
    before = None
    for number in range(6):
        for model, optimizer, step in zip(models, optimizers, steps, strict=True):
            give_gradients(model, number)
            step()
            for group in optimizer.param_groups:  # as PyTorch's schedules do for a tensor
                group["lr"].mul_(0.9)
        if number == 1:
            before = graphs()
    breaks = list(torch._dynamo.utils.counters["graph_break"])
    assert [reason for reason in breaks if OF_PYTORCH not in reason] == []
    assert before == graphs() == wanted_graphs
    assert largest_difference(eager, compiled) < tolerance
    assert largest_difference(eager, transformer(architecture)) > 10 * tolerance


def synchronizations(make, architecture):
    model = transformer(architecture)
    optimizer = make(model.named_parameters(), lr=1e-2)
    for step in range(2):
        give_gradients(model, step)
        with Operations() as operations:
            optimizer.step()
    return operations.synchronizations


@pytest.mark.parametrize(
    ("make", "architecture"),
    [
        (functools.partial(AdamWPower, fused=True), "llama"),
        (functools.partial(AdamWPower, fused=True, floor=1e-8), "llama"),
        (functools.partial(AdamWPower, compile=True), "llama"),
        (functools.partial(BlockwiseAdamW, fused=True), "gpt2"),
        (BlockwiseLion, "gpt2"),
        (functools.partial(AdamMini, head_dim=8), "gpt2"),
        (functools.partial(SGDPower, p=1.1), "llama"),
        (functools.partial(gradpower(AdamMini, 1.1), head_dim=8), "gpt2"),
    ],
    ids=[
        "AdamWPower",
        "floor",
        "compile=True",
        "BlockwiseAdamW",
        "BlockwiseLion",
        "AdamMini",
        "SGDPower",
        "AdamMiniPower",
    ],
)
def test_a_step_does_not_synchronize_with_the_device(make, architecture):
    assert synchronizations(make, architecture) == 0


def test_only_pytorchs_own_step_counter_is_read_back():
    """The unfused optimizer reads its step counter, which is on the CPU."""
    of_pytorch = synchronizations(AdamW, "gpt2")
    assert of_pytorch == len(list(transformer("gpt2").parameters()))
    assert synchronizations(AdamWPower, "gpt2") == of_pytorch
    assert synchronizations(BlockwiseAdamW, "gpt2") == of_pytorch
    of_muon = synchronizations(MuonAdamW, "llama")
    assert synchronizations(functools.partial(MuonPower, p=1.1), "llama") == of_muon
