"""Combinations of plugins in two processes against hand-written training loops."""

from functools import partial

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from reference_sam import loss_of, perturbed_weights

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.optimizers import SGDPower
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete

AGENTS, EPOCHS = 2, 4
APART = Communication(Complete(), Schedule(rate=0.0))
CASES = {
    "late SAM and power": {
        "communication": Communication(Complete(), Schedule(every_n_steps=3)),
        "module": {"plain": True, "power": 1.2},
        "callbacks": [partial(LateSAM, start=0.5, rho=0.1)],
    },
    "late SAM, power and blocks under DDP": {
        "strategy": "ddp",
        "module": {"plain": True, "together": True},
        "callbacks": [partial(LateSAM, start=0.5, rho=0.1)],
    },
    "moving average": {
        "communication": APART,
        "module": {"plain": True},
        "callbacks": [partial(EMAWeightAveraging, decay=0.9)],
    },
    "stochastic weight averaging": {
        "communication": APART,
        "module": {"plain": True},
        "callbacks": [partial(StochasticWeightAveraging, swa_lrs=0.05, swa_epoch_start=1)],
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cases = {name: {**case, "trainer": {"max_epochs": EPOCHS}} for name, case in CASES.items()}
    results = harness.run_trainers(AGENTS, tmp_path_factory.mktemp("beside"), cases)
    assert None not in results
    return lambda name: [result[name] for result in results]


def batches_of(result):
    """Yield an agent's batches, reconstructed from the first feature of each sample it saw."""
    data = harness.samples()
    places = {float(features[0]): place for place, (features, _) in enumerate(data)}
    for order in torch.tensor([places[value] for value in result["seen"]]).split(
        harness.BATCH_SIZE
    ):
        yield data[order]


def steps_of(results):
    """Return the processes' batches of each step, and the number of steps before SAM.

    The second pass of SAM leaves no trace in the module's list of batches.
    """
    steps = list(zip(*map(batches_of, results), strict=True))
    return steps, len(steps) // 2


def gradient_of(network, batch, is_sam):
    network.zero_grad()
    loss_of(network, batch, 1.0).backward()
    if is_sam:
        with perturbed_weights(network, list(network.parameters()), 0.1, "sam", 1.0):
            network.zero_grad()
            loss_of(network, batch, 1.0).backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.scale(plugin="LateSAM", strategy="ddp")
@pytest.mark.scale(plugin="BlockwiseAdamW", strategy="ddp")
def test_under_ddp_the_mean_sam_gradient_is_powered_and_stepped_per_block(trained):
    results = trained("late SAM, power and blocks under DDP")
    module = harness.Classifier(plain=True)
    steps, before_sam = steps_of(results)
    optimizer, schedule = harness.powered_blockwise(module.named_parameters(), len(steps))
    for step, batches in enumerate(steps):
        found = [gradient_of(module.network, batch, step >= before_sam) for batch in batches]
        for parameter, *gradients in zip(module.parameters(), *found, strict=True):
            parameter.grad = torch.stack(gradients).mean(dim=0)
        optimizer.step()
        schedule.step()
    for result in results:
        torch.testing.assert_close(result["weights"], harness.flat(module), rtol=1e-5, atol=1e-6)


@pytest.mark.scale(plugin="LateSAM", strategy="decentralized")
@pytest.mark.scale(plugin="SGDPower", strategy="decentralized")
def test_each_agent_applies_sam_and_gradpower_to_its_own_gradient(trained):
    results = trained("late SAM and power")
    agents = [harness.Classifier(plain=True).network for _ in results]
    optimizers = [SGDPower(agent.parameters(), lr=0.1, momentum=0.9, p=1.2) for agent in agents]
    steps, before_sam = steps_of(results)
    for step, batches in enumerate(steps, start=1):
        for agent, optimizer, batch in zip(agents, optimizers, batches, strict=True):
            gradient_of(agent, batch, step > before_sam)
            optimizer.param_groups[0]["lr"] = 0.1 * 0.9 ** ((step - 1) // 5)
            optimizer.step()
        if step % 3 == 0 or step == len(steps):
            with torch.no_grad():
                for same in zip(*(agent.parameters() for agent in agents), strict=True):
                    mean = torch.stack(same).mean(dim=0)
                    for parameter in same:
                        parameter.copy_(mean)
    (expected, _) = (harness.flat(torch.nn.ModuleDict({"network": agent})) for agent in agents)
    for result in results:
        torch.testing.assert_close(result["weights"], expected, rtol=1e-5, atol=1e-6)


def test_agents_merge_their_moving_averages(trained):
    results = trained("moving average")
    averages = []
    for result in results:
        first, *later = result["watched"]["batches"]
        average = first
        for weights in later:
            average = 0.9 * average + 0.1 * weights
        averages.append(average)
    assert (averages[0] - averages[1]).norm() > 1e-3
    expected = torch.stack(averages).mean(dim=0)
    for result in results:
        torch.testing.assert_close(result["weights"], expected, rtol=1e-5, atol=1e-6)


def test_agents_merge_their_stochastic_weight_averages(trained):
    results = trained("stochastic weight averaging")
    averages = []
    for result in results:
        batches = result["watched"]["batches"]
        an_epoch = len(batches) // EPOCHS
        # Lightning averages the weights at the start of each epoch.
        ends = [batches[epoch * an_epoch - 1] for epoch in range(1, EPOCHS)]
        averages.append(torch.stack([result["watched"]["start"], *ends]).mean(dim=0))
    assert (averages[0] - averages[1]).norm() > 1e-3
    expected = torch.stack(averages).mean(dim=0)
    for result in results:
        torch.testing.assert_close(result["weights"], expected, rtol=1e-5, atol=1e-6)
