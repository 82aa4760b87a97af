"""LateSAM on two gloo processes, compared with two workers emulated in one process."""

import json

import program_ddp_sam as program
import pytest
import torch
from forked_ranks import launch
from torch.nn.functional import cross_entropy

CASES = {
    "local": {"sam": {"start": 0.5}},
    "averaged": {"sam": {"start": 0.5, "local": False}},
    "local-accumulated": {"sam": {"start": 0}, "trainer": {"accumulate_grad_batches": 2}},
    "averaged-accumulated": {
        "sam": {"start": 0, "local": False},
        "trainer": {"accumulate_grad_batches": 2},
    },
    "micro-batches": {
        "sam": {"start": 0, "accumulation": "micro-batch"},
        "trainer": {"accumulate_grad_batches": 2},
    },
    "static-graph": {
        "sam": {"start": 0, "local": False},
        "strategy": {"static_graph": True},
    },
    "bucket-view": {
        "sam": {"start": 0, "accumulation": "micro-batch"},
        "trainer": {"accumulate_grad_batches": 2},
        "strategy": {"gradient_as_bucket_view": True},
    },
}
for case in CASES.values():
    case.setdefault("strategy", {})
    case.setdefault("trainer", {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    launch(program.__file__, folder, json.dumps(CASES), limit=200)
    return lambda name: [
        torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)
    ]


def emulated(sam, trainer, strategy):
    """Two workers in one process, whose gradients are averaged at the points where DDP averages."""
    network = program.network()
    parameters = list(network.parameters())
    optimizer = program.optimizer_of(parameters)
    features, labels = program.samples()
    shards = [(features[rank::2], labels[rank::2]) for rank in (0, 1)]
    accumulate = trainer.get("accumulate_grad_batches", 1)
    by_micro_batch = sam.get("accumulation") == "micro-batch"
    batches = len(shards[0][0]) // program.BATCH_SIZE
    total_steps = 2 * batches // accumulate

    def gradient(rank, micro_batches):
        loss = 0
        for index in micro_batches:
            part = slice(index * program.BATCH_SIZE, (index + 1) * program.BATCH_SIZE)
            logits = network(shards[rank][0][part])
            loss = loss + cross_entropy(logits, shards[rank][1][part]) / accumulate
        return torch.autograd.grad(loss, parameters)

    def average(gradients):
        return [(a + b) / 2 for a, b in zip(*gradients, strict=True)]

    def at_worst_point(direction, rank, micro_batches):
        originals = [p.detach().clone() for p in parameters]
        norm = torch.stack([g.norm() for g in direction]).norm()
        with torch.no_grad():
            for p, g in zip(parameters, direction, strict=True):
                p += 0.1 * g / norm
        found = gradient(rank, micro_batches)
        with torch.no_grad():
            for p, original in zip(parameters, originals, strict=True):
                p.copy_(original)
        return found

    step = 0
    for _ in range(2):
        for first in range(0, batches, accumulate):
            window = list(range(first, first + accumulate))
            if step < sam["start"] * total_steps:
                final = average([gradient(rank, window) for rank in (0, 1)])
            elif by_micro_batch:
                sums = [
                    [
                        sum(parts)
                        for parts in zip(
                            *(at_worst_point(gradient(rank, [i]), rank, [i]) for i in window),
                            strict=True,
                        )
                    ]
                    for rank in (0, 1)
                ]
                final = average(sums)
            else:
                firsts = [gradient(rank, window) for rank in (0, 1)]
                if not sam.get("local", True):
                    firsts = [average(firsts)] * 2
                final = average([at_worst_point(firsts[rank], rank, window) for rank in (0, 1)])
            for p, g in zip(parameters, final, strict=True):
                p.grad = g
            optimizer.step()
            step += 1
    return network.state_dict()


@pytest.mark.scale(plugin="LateSAM", strategy="ddp")
@pytest.mark.parametrize("name", CASES)
def test_ranks_agree_with_each_other_and_with_emulated_workers(trained, name):
    one, other = trained(name)
    expected = emulated(**CASES[name])
    for key, value in expected.items():
        assert torch.equal(one[key], other[key])
        torch.testing.assert_close(one[key], value, rtol=0, atol=1e-7)


def test_local_and_averaged_perturbation_differ(trained):
    local, averaged = trained("local")[0], trained("averaged")[0]
    assert not torch.equal(local["0.weight"], averaged["0.weight"])
