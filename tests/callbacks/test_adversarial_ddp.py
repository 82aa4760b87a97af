"""Adversarial training and evaluation on two gloo processes, compared with two emulated workers."""

import json

import program_ddp_adversarial as program
import pytest
import torch
from forked_ranks import launch
from torch.nn.functional import cross_entropy

from lightning_plugins.attacks.image import pgd, robust_accuracy


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Weights and test results of each rank."""
    folder = tmp_path_factory.mktemp("ddp")
    launch(program.__file__, folder, limit=200)
    return [
        (
            torch.load(folder / f"{rank}.pt", weights_only=True),
            json.loads((folder / f"{rank}.json").read_text()),
        )
        for rank in (0, 1)
    ]


def emulated():
    """Two workers in one process: each attacks its own batch, and gradients are averaged."""
    network = program.network()
    network[2].p = 0.0
    parameters = list(network.parameters())
    optimizer = program.optimizer_of(parameters)
    images, labels = program.samples()
    batches = program.SAMPLES // 2 // program.BATCH_SIZE
    for step in range(program.EPOCHS * batches):
        part = slice(step % batches * program.BATCH_SIZE, (step % batches + 1) * program.BATCH_SIZE)
        gradients = []
        for rank in (0, 1):
            x, y = images[rank::2][part], labels[rank::2][part]
            if step >= program.EPOCHS * batches // 2:
                x = pgd(lambda x, y=y: cross_entropy(network(x), y), x, **program.ATTACK)
            gradients.append(torch.autograd.grad(cross_entropy(network(x), y), parameters))
        for parameter, one, other in zip(parameters, *gradients, strict=True):
            parameter.grad = (one + other) / 2
        optimizer.step()
    return network


@pytest.mark.scale(plugin="LateAdversarialTraining", strategy="ddp")
def test_ranks_agree_with_each_other_and_with_emulated_workers(ranks):
    (one, _), (other, _) = ranks
    for name, value in emulated().state_dict().items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], value, rtol=0, atol=1e-6)


@pytest.mark.scale(plugin="AdversarialEvaluation", strategy="ddp")
def test_robust_accuracy_covers_all_samples_of_all_processes(ranks):
    (weights, result), (_, other) = ranks
    network = program.network()
    network.load_state_dict(weights)
    expected = robust_accuracy(network, [program.samples()], **program.EVALUATION)
    assert result == other
    assert result["robust/accuracy"] == pytest.approx(expected.robust)
    assert result["robust/natural_accuracy"] == pytest.approx(expected.natural)
    assert expected.robust < expected.natural
