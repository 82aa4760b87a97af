import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from lightning_plugins.curvature import Interpolation, interpolate, weights_of_checkpoint

INPUT = torch.ones(1, 1)


def copied(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def data(seed=0, count=64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).long()


def trained(network, steps=300, lr=0.1):
    inputs, labels = data()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    return copied(network)


def mlp(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def test_values_of_a_quadratic_loss_equal_the_closed_form():
    network = nn.Linear(1, 1, bias=False)
    inputs, targets = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    a, b = {"weight": torch.tensor([[-1.0]])}, {"weight": torch.tensor([[3.0]])}
    line = interpolate(
        network,
        a,
        b,
        lambda x, y: mse_loss(network(x), y),
        [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])],
        points=5,
        margin=0.25,
    )
    assert line.alphas == (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    # w = 4 alpha - 1, mean of (w x)^2 over x = 1, 2.
    assert line.losses == pytest.approx([2.5 * (4 * alpha - 1) ** 2 for alpha in line.alphas])
    assert line.barrier == 0


def test_networks_of_two_seeds_have_a_barrier_and_one_with_itself_has_none():
    network = mlp(0)
    a = trained(network)
    b = trained(mlp(1))
    inputs, labels = data()

    def loss(x, y):
        return cross_entropy(network(x), y)

    assert interpolate(network, a, b, loss, [(inputs, labels)]).barrier > 0.1
    assert interpolate(network, a, a, loss, [(inputs, labels)]).barrier == pytest.approx(
        0, abs=1e-6
    )


def test_permuting_hidden_units_keeps_the_function_and_creates_a_barrier():
    network = mlp(0)
    a = trained(network)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    b = {
        "0.weight": a["0.weight"][order],
        "0.bias": a["0.bias"][order],
        "2.weight": a["2.weight"][:, order],
        "2.bias": a["2.bias"],
    }

    def loss(x, y):
        return cross_entropy(network(x), y)

    def accuracy(x, y):
        return (network(x).argmax(dim=1) == y).double().mean()

    line = interpolate(network, a, b, loss, [data()], metrics={"accuracy": accuracy})
    assert line.losses[0] == pytest.approx(line.losses[-1], rel=1e-4)
    assert line.barrier > 0.1
    accuracies = line.metrics["accuracy"]
    assert accuracies[0] == accuracies[-1] > min(accuracies) + 0.05
    network.load_state_dict(a)
    assert accuracies[0] == pytest.approx(accuracy(*data()).item())


def test_the_grid_continues_beyond_the_ends():
    network = nn.Linear(1, 1)
    state = copied(network)
    line = interpolate(
        network, state, state, lambda x: network(x).sum(), [(INPUT,)], points=5, margin=0.6
    )
    expected = [-0.6, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.6]
    assert line.alphas == pytest.approx(expected)


def test_a_nan_loss_makes_the_barrier_nan():
    assert math.isnan(Interpolation((0.0, 0.5, 1.0), (1.0, math.nan, 1.0)).barrier)
    assert Interpolation((0.0, 0.5, 1.0), (1.0, math.inf, 1.0)).barrier == math.inf
    beyond = Interpolation((-0.5, 0.0, 0.5, 1.0), (math.nan, 1.0, 2.0, 1.0))
    assert beyond.barrier == 1.0


def test_counters_are_not_interpolated():
    network = nn.BatchNorm1d(2)
    a, b = copied(network), copied(network)
    b["num_batches_tracked"] += 7
    seen = []

    def loss(x):
        seen.append(network.num_batches_tracked.item())
        return network(x).sum()

    interpolate(network, a, b, loss, [(torch.zeros(2, 2),)], points=3)
    assert seen == [0, 0, 0]


def test_estimated_statistics_equal_those_of_torch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.BatchNorm1d(8))
    batches = [(data(seed)[0],) for seed in range(3)]
    state, seen = copied(network), []

    def loss(x):
        seen.append(copied(network))
        return network(x).sum()

    interpolate(network, state, state, loss, batches[:1], points=2, batch_norm_batches=batches)
    torch.optim.swa_utils.update_bn(batches, network)
    for name, value in network.state_dict().items():
        assert torch.allclose(seen[0][name], value), name


def test_an_end_may_be_the_state_of_the_network_itself():
    network = mlp(0)
    a = trained(network)
    b = trained(mlp(1))
    batch = data()

    def losses():
        line = interpolate(network, a, end, lambda x, y: cross_entropy(network(x), y), [batch])
        return line.losses

    end = b
    expected = losses()
    network.load_state_dict(b)
    end = network.state_dict()
    assert losses() == expected


def test_estimating_batch_norm_again_removes_a_barrier_of_the_statistics():
    """Scaling the layer before batch normalization changes nothing: the line is one function."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16, eps=1e-9), nn.ReLU(), nn.Linear(16, 2)
    )
    inputs, labels = data()
    a = trained(network)
    b = {**a, "0.weight": 10 * a["0.weight"], "1.running_var": 100 * a["1.running_var"]}
    b["1.running_mean"] = 10 * a["1.running_mean"]

    def barrier(**options):
        line = interpolate(
            network, a, b, lambda x, y: cross_entropy(network(x), y), [(inputs, labels)], **options
        )
        return line.barrier

    assert barrier() > 0.01
    assert barrier(batch_norm_batches=[(inputs,)]) == pytest.approx(0, abs=1e-4)


def test_the_network_is_restored():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    network[2].eval()
    before, inputs = copied(network), data()[0]
    a, b = ({name: value + by for name, value in before.items()} for by in (1, 2))
    interpolate(network, a, b, lambda x: network(x).sum(), [(inputs,)], points=2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, True, False, True]


def test_weights_that_cannot_be_compared_are_refused():
    network = nn.Linear(2, 2)
    state = copied(network)
    batches = [(torch.zeros(1, 2),)]

    def loss(x):
        return network(x).sum()

    with pytest.raises(ValueError, match="only one has bias"):
        interpolate(network, state, {"weight": state["weight"]}, loss, batches)
    with pytest.raises(ValueError, match=r"bias has shape \(2,\) in a and \(3,\) in b"):
        interpolate(network, state, {**state, "bias": torch.zeros(3)}, loss, batches)
    with pytest.raises(ValueError, match="points=1"):
        interpolate(network, state, state, loss, batches, points=1)
    with pytest.raises(ValueError, match="batches is empty"):
        interpolate(network, state, state, loss, [])
    with pytest.raises(ValueError, match="margin=-1"):
        interpolate(network, state, state, loss, batches, margin=-1)


def test_weights_are_read_from_a_lightning_checkpoint(tmp_path):
    network = nn.Linear(2, 2)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    network.load_state_dict(weights_of_checkpoint(tmp_path / "a.ckpt", "network."))
    with pytest.raises(ValueError, match="prefix='net-'"):
        weights_of_checkpoint(tmp_path / "a.ckpt", "net-")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="has no state_dict"):
        weights_of_checkpoint(tmp_path / "b.ckpt")
