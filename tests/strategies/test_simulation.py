"""simulate() against agents trained one by one, and against analytic results on merging."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.simulation import simulate
from lightning_plugins.strategies.topologies import Complete, RandomMatching, RandomPull, Ring

AGENTS, STEPS = 5, 12


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


SKELETON = network()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    features = torch.randn(AGENTS, 7, 6, generator=generator)
    return features, torch.randint(3, (AGENTS, 7), generator=generator)


def loss_fn(parameters, one):
    return cross_entropy(functional_call(SKELETON, parameters, (one[0],)), one[1])


sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3)
adamw = partial(torch.optim.AdamW, lr=0.01)


def run(communication, optimizer=sgd, **arguments):
    parameters = dict(network().named_parameters())
    return simulate(
        loss_fn, parameters, batch, optimizer, communication, AGENTS, STEPS, **arguments
    )


def one_by_one(communication, optimizer):
    """Train separate modules, with a dense matrix product per round."""
    modules = [network() for _ in range(AGENTS)]
    optimizers = [optimizer(module.parameters()) for module in modules]
    for step in range(STEPS):
        features, labels = batch(step)
        for k, (module, stepper) in enumerate(zip(modules, optimizers, strict=True)):
            stepper.zero_grad()
            cross_entropy(module(features[k]), labels[k]).backward()
            stepper.step()
        round_ = communication.after(step + 1, STEPS)
        if round_ is None:
            continue
        matrix = round_.topology.plan(communication.seed, round_.number, range(AGENTS))
        matrix = matrix.matrix(AGENTS)
        flats = torch.stack(
            [nn.utils.parameters_to_vector(m.parameters()).detach().double() for m in modules]
        )
        for module, row in zip(modules, matrix @ flats, strict=True):
            nn.utils.vector_to_parameters(row.float(), module.parameters())
    return [dict(module.named_parameters()) for module in modules]


@pytest.mark.parametrize("optimizer", [sgd, adamw], ids=["SGD", "AdamW"])
@pytest.mark.parametrize(
    "communication",
    [
        Communication(RandomPull(1.5), Schedule(every_n_steps=2), final_merge=False, seed=4),
        Communication(RandomMatching(), Schedule(every_n_steps=3)),
        Communication(Ring(), Schedule("window", start=0.5, width=0.25, end_rate=0.25)),
    ],
)
def test_simulate_equals_training_agents_one_by_one(communication, optimizer):
    end = run(communication, optimizer)
    for name, stacked in end.agents.items():
        for k, agent in enumerate(one_by_one(communication, optimizer)):
            torch.testing.assert_close(stacked[k], agent[name].detach(), rtol=0, atol=2e-6)


def test_one_agent_equals_plain_training():
    alone = simulate(
        lambda p, b: loss_fn(p, (b[0], b[1])),
        dict(network().named_parameters()),
        lambda step: tuple(part[:1] for part in batch(step)),
        sgd,
        Communication(RandomMatching()),
        1,
        STEPS,
    )
    module = network()
    stepper = sgd(module.parameters())
    for step in range(STEPS):
        features, labels = batch(step)
        stepper.zero_grad()
        cross_entropy(module(features[0]), labels[0]).backward()
        stepper.step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(alone.merged[name], value.detach(), rtol=0, atol=1e-6)
    assert alone.ledger.total().bytes_sent == 0


def test_averaging_after_each_step_equals_training_on_the_joint_batch():
    end = run(Communication(Complete()))
    module = network()
    stepper = sgd(module.parameters())
    for step in range(STEPS):
        features, labels = batch(step)
        stepper.zero_grad()
        cross_entropy(module(features.flatten(0, 1)), labels.flatten()).backward()
        stepper.step()
    for name, value in module.named_parameters():
        torch.testing.assert_close(end.merged[name], value.detach(), rtol=0, atol=1e-6)
    assert end.consensus_distance == 0


def test_on_a_quadratic_the_merge_gains_half_the_curvature_weighted_variance():
    # mean_i L(x_i) - L(mean x) = 1/2 sum_l lambda_l Var(x_l) for a quadratic with eigenvalues
    # lambda: the identity behind mergeability.
    eigenvalues = torch.tensor([3.0, 1.0, 0.25])
    targets = torch.randn(AGENTS, 3, generator=torch.Generator().manual_seed(0))

    def loss(parameters, target):
        return 0.5 * (eigenvalues * (parameters["x"] - target) ** 2).sum()

    end = simulate(
        loss,
        {"x": torch.zeros(3)},
        lambda step: targets,
        partial(torch.optim.SGD, lr=0.1),
        Communication(Ring(), Schedule(every_n_steps=4), final_merge=False),
        AGENTS,
        10,
    )
    positions = end.agents["x"].double()
    optimum = targets.double().mean(0)
    local = (0.5 * (eigenvalues * (positions - optimum) ** 2).sum(1)).mean()
    merged = 0.5 * (eigenvalues * (positions.mean(0) - optimum) ** 2).sum()
    variance = positions.var(0, correction=0)
    torch.testing.assert_close(local - merged, 0.5 * (eigenvalues * variance).sum().double())


def test_the_outer_optimizer_equals_torchs_nesterov_on_the_mean_movement():
    communication = Communication(Complete(), Schedule(every_n_steps=3), outer=OuterNesterov())
    end = run(communication, partial(torch.optim.SGD, lr=0.1))
    anchor = network()
    outer = torch.optim.SGD(anchor.parameters(), lr=0.7, momentum=0.9, nesterov=True)
    for first in range(0, STEPS, 3):
        ends = []
        for k in range(AGENTS):
            module = network()
            module.load_state_dict(anchor.state_dict())
            inner = torch.optim.SGD(module.parameters(), lr=0.1)
            for step in range(first, first + 3):
                features, labels = batch(step)
                inner.zero_grad()
                cross_entropy(module(features[k]), labels[k]).backward()
                inner.step()
            ends.append([p.detach() for p in module.parameters()])
        for parameter, *moved in zip(anchor.parameters(), *ends, strict=True):
            parameter.grad = parameter.detach() - torch.stack(moved).mean(0)
        outer.step()
    for name, value in anchor.named_parameters():
        torch.testing.assert_close(end.agents[name][2], value.detach(), rtol=0, atol=1e-6)


def test_observers_see_each_round():
    seen = []
    run(Communication(Ring(), Schedule(every_n_steps=4)), observe=lambda step, _: seen.append(step))
    assert seen == [4, 8, 12]


def test_an_agent_that_diverged_is_named():
    def explode(parameters, one):
        return loss_fn(parameters, one) * torch.where(one[2] == 3, torch.inf, 1.0)

    with pytest.raises(RuntimeError, match="weights of agent 3 are not finite"):
        simulate(
            explode,
            dict(network().named_parameters()),
            lambda step: (*batch(step), torch.arange(AGENTS)),
            sgd,
            Communication(Ring()),
            AGENTS,
            STEPS,
        )


def test_parameters_of_two_dtypes_are_refused():
    two = {"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.float64)}
    with pytest.raises(ValueError, match="expected one dtype"):
        simulate(loss_fn, two, batch, sgd, Communication(Ring()), AGENTS, 1)
