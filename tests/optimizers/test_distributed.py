"""Two gloo processes, under DDP in Lightning and under FSDP2, against one process.

torchrun starts this file as a program: ``main`` is what each process does, the tests read what it
saved.
"""

import functools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from small_transformers import HEAD_DIM, transformer
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial
from torch.optim import AdamW
from torch.utils.data import DataLoader

from lightning_plugins.optimizers import (
    AdamMini,
    AdamWPower,
    BlockwiseAdamW,
    BlockwiseLion,
    GradPower,
    MuonPower,
)
from lightning_plugins.optimizers.sign_power import sign_power_

RATE, LIMIT, P, STEPS, WORKERS = 1e-2, 0.5, 1.2, 6, 2
OPTIMIZERS = {
    "AdamWPower": functools.partial(AdamWPower, lr=RATE, p=P, compile=True),
    # Two heads of the keys, one on each rank, form one block that lies on both.
    "AdamMini": functools.partial(AdamMini, lr=RATE, head_dim=2 * HEAD_DIM["llama"]),
    "BlockwiseAdamW": functools.partial(BlockwiseAdamW, lr=RATE),
    "BlockwiseLion": functools.partial(BlockwiseLion, lr=RATE / 10),
    "GradPower": functools.partial(GradPower, base=functools.partial(BlockwiseAdamW, lr=RATE), p=P),
    "MuonPower": functools.partial(MuonPower, lr=RATE, p=P),
}


def tokens(step):
    return torch.randint(24, (4, 12), generator=torch.Generator().manual_seed(step))


def train(model, optimizer, steps, rows=slice(None)):
    for step in steps:
        optimizer.zero_grad()
        model(tokens(step)[rows], labels=tokens(step)[rows]).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
        optimizer.step()


# What each process does.


class Lit(LightningModule):
    def __init__(self, make):
        super().__init__()
        self.net, self.make = transformer("llama"), make

    def training_step(self, batch, batch_idx):
        return self.net(batch, labels=batch).loss

    def configure_optimizers(self):
        return self.make(self.parameters())

    def train_dataloader(self):
        rows = slice(self.trainer.global_rank, None, WORKERS)
        return DataLoader([tokens(step)[rows] for step in range(STEPS)], batch_size=None)


def under_ddp(make, folder):
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=WORKERS,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=1,
        gradient_clip_val=LIMIT,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Lit(make)
    trainer.fit(module)
    return module.net.state_dict()


def sharded(architecture, mesh):
    model = transformer(architecture)
    for layer in model.model.layers if architecture == "llama" else model.transformer.h:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def under_fsdp(make, mesh):
    model = sharded("llama", mesh)
    train(
        model, make(model.named_parameters()), range(STEPS), slice(dist.get_rank(), None, WORKERS)
    )
    return gathered(model)


def resumed_under_fsdp(make, mesh, folder):
    """Train half the run, save a checkpoint, and train the other half with a new model."""
    rows = slice(dist.get_rank(), None, WORKERS)
    first = sharded("llama", mesh)
    optimizer = make(first.named_parameters())
    train(first, optimizer, range(STEPS // 2), rows)
    model_state, optimizer_state = get_state_dict(first, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)

    second = sharded("llama", mesh)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    optimizer = make(second.named_parameters())
    for group in optimizer.param_groups:
        group["lr"] = 7.0
    model_state, optimizer_state = get_state_dict(second, optimizer)
    loaded = {"model": model_state, "optimizer": optimizer_state}
    dcp.load(loaded, checkpoint_id=folder)
    set_state_dict(
        second,
        optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
    )
    train(second, optimizer, range(STEPS // 2, STEPS), rows)
    return gathered(second)


def gathered(model):
    return {name: value.full_tensor().detach() for name, value in model.named_parameters()}


def refusals(mesh):
    def message(function):
        try:
            function()
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "accepted"

    unreduced = DTensor.from_local(torch.ones(3), mesh, [Partial()])
    return {"unreduced": message(lambda: sign_power_([unreduced], P))}


def of_one_row(mesh):
    """Step with a hidden matrix of one row, which only rank 0 has."""
    model = nn.Linear(4, 1, bias=False)
    nn.init.ones_(model.weight)
    fully_shard(model, mesh=mesh)
    optimizer = MuonPower(model.named_parameters(), lr=RATE, p=P, patterns={"weight": "ffn"})
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return gathered(model)


def kernel_keeps_gradients(mesh):
    """Step with the C++ kernel, which alone leaves the gradients as they are."""
    model = sharded("llama", mesh)
    optimizer = OPTIMIZERS["AdamWPower"](model.named_parameters())
    model(tokens(0), labels=tokens(0)).loss.backward()
    gradients = [parameter.grad.to_local() for parameter in model.parameters()]
    before = [gradient.clone() for gradient in gradients]
    optimizer.step()
    return all(map(torch.equal, before, gradients))


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = {f"ddp-{name}": under_ddp(make, folder) for name, make in OPTIMIZERS.items()}
    mesh = init_device_mesh("cpu", (WORKERS,))
    for name, make in OPTIMIZERS.items():
        found[f"fsdp2-{name}"] = under_fsdp(make, mesh)
        found[f"resumed-{name}"] = resumed_under_fsdp(make, mesh, f"{folder}/{name}")
    found["one row"] = of_one_row(mesh)
    found["kernel keeps gradients"] = kernel_keeps_gradients(mesh)
    torch.save(found, f"{folder}/{dist.get_rank()}.pt")
    Path(folder, f"refusals-{dist.get_rank()}.json").write_text(json.dumps(refusals(mesh)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])


# What is expected of it.

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    harness = next(path for path in sys.path if path.endswith("harness"))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(__file__, str(folder)),
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": harness},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORKERS)]
    return lambda name: [rank[name] for rank in ranks]


@functools.cache
def in_one_process(name):
    model = transformer("llama")
    train(model, OPTIMIZERS[name](model.named_parameters()), range(STEPS))
    return {name: value.detach() for name, value in model.named_parameters()}


def difference(one, other):
    """Return the difference of two runs from the same start, relative to the distance covered."""
    start = dict(transformer("llama").named_parameters())
    apart = sum((one[name] - other[name]).square().sum() for name in other)
    way = sum((start[name].detach() - other[name]).square().sum() for name in other)
    return float((apart / way).sqrt())


# Gradients are summed in another order, which Newton-Schulz in bfloat16 makes larger: 0.02 was
# measured, and 0.24 with the iteration on each process's rows alone.
TOLERANCES = {"MuonPower": 5e-2}


@pytest.mark.scale(plugin="{name}", strategy="{strategy}")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_result_of_one(trained, strategy, name):
    one, other = trained(f"{strategy}-{name}")
    expected = in_one_process(name)
    assert all(torch.equal(one[key], other[key]) for key in expected)
    assert difference(one, expected) < TOLERANCES.get(name, 1e-4)


@pytest.mark.scale(plugin="{name}", strategy="fsdp2")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_distributed_checkpoint_resumes_bit_for_bit(trained, name):
    for straight, resumed in zip(trained(f"fsdp2-{name}"), trained(f"resumed-{name}"), strict=True):
        assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_transforming_before_the_reduction_would_give_another_result():
    """The error that the first test must detect: the power before the average over processes."""
    model = transformer("llama")
    parameters = list(model.parameters())
    optimizer = AdamW(parameters, lr=RATE)
    for step in range(STEPS):
        gradients = []
        for rank in range(WORKERS):
            rows = tokens(step)[rank::WORKERS]
            gradients.append(torch.autograd.grad(model(rows, labels=rows).loss, parameters))
            sign_power_(gradients[-1], P)
        for parameter, *of_ranks in zip(parameters, *gradients, strict=True):
            parameter.grad = sum(of_ranks) / WORKERS
        optimizer.step()
    wrong = {name: value.detach() for name, value in model.named_parameters()}
    assert difference(wrong, in_one_process("AdamWPower")) > 1e-2


def test_gradients_that_are_not_reduced_raise_an_error(folder):
    for rank in range(WORKERS):
        said = json.loads((folder / f"refusals-{rank}.json").read_text())
        assert "not reduced yet" in said["unreduced"]


def test_a_hidden_matrix_of_one_row_is_updated_by_adamw(trained):
    step = RATE * 0.1 + RATE  # decay and the first step of AdamW
    for rank in trained("one row"):
        torch.testing.assert_close(rank["weight"], torch.full((1, 4), 1 - step))


def test_shards_are_updated_by_the_kernel(trained):
    assert trained("kernel keeps gradients") == [True] * WORKERS
