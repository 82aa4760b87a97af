"""IRN's network: its states depend on the past and the objective, but not on later items."""

import pytest
import torch

from lightning_plugins.nn.recommendation import InfluentialNetwork, SASRec
from lightning_plugins.nn.recommendation.dropout import Dropout
from lightning_plugins.nn.recommendation.influential_network import _with_objectives


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = InfluentialNetwork(num_items=9, dim=8, layers=3, max_length=6).eval()
    torch.nn.init.normal_(made.item_embedding.weight)
    return made


def test_states_do_not_depend_on_later_items(network):
    items, objective = torch.tensor([[3, 1, 4, 1, 5, 9]]), torch.tensor([2])
    states = network.encode(items, objective)
    for place in range(1, 6):
        changed = items.clone()
        changed[0, place:] = torch.tensor([7, 8, 6, 2, 7])[: 6 - place]
        other = network.encode(changed, objective)
        torch.testing.assert_close(other[:, :place], states[:, :place])
        assert not torch.allclose(other[:, place:], states[:, place:])


def test_of_a_long_history_only_the_latest_items_count(network):
    items, objective = torch.tensor([[7, 8, 3, 1, 4, 1, 5, 9, 0]]), torch.tensor([2])
    latest = torch.tensor([[3, 1, 4, 1, 5, 9]])
    torch.testing.assert_close(
        network.state(items, objective), network.encode(latest, objective)[:, -1]
    )
    with pytest.raises(ValueError, match="windows of 9 items: the network has max_length=6"):
        network.loss(items)


def test_every_state_depends_on_the_objective_unless_its_weight_is_low(network):
    items = torch.tensor([[3, 1, 4]])
    states = [network.encode(items, torch.tensor([objective])) for objective in (2, 7)]
    assert (states[0] - states[1]).abs().amax(dim=2).min() > 1e-3
    with torch.no_grad():
        network.objective_weight.fill_(-30)
    hidden = [network.encode(items, torch.tensor([objective])) for objective in (2, 7)]
    torch.testing.assert_close(hidden[0], hidden[1])
    torch.testing.assert_close(hidden[0], network.encode(items))


def test_each_user_has_a_weight_of_the_objective_and_an_unknown_user_the_mean():
    torch.manual_seed(0)
    network = InfluentialNetwork(num_items=9, dim=8, layers=1, max_length=6, num_users=3).eval()
    torch.nn.init.normal_(network.item_embedding.weight)
    weights = network.weights(torch.tensor([1, 2, 3, 0]))
    assert len(weights[:3].unique()) == 3
    torch.testing.assert_close(weights[3], weights[:3].mean(dim=0))
    items, objective = torch.tensor([[3, 1, 4]]).expand(4, 3), torch.tensor([2]).expand(4)
    states = network.state(items, objective, torch.tensor([1, 2, 3, 0]))
    assert (states[0] - states[1]).abs().max() > 1e-4
    torch.testing.assert_close(states[3:], network.state(items[:1], objective[:1]))
    # Without an objective, the weight has no effect.
    torch.testing.assert_close(
        network.state(items, users=torch.tensor([1, 2, 3, 0]))[0], network.state(items)[0]
    )


def test_training_changes_the_weights_of_the_users_in_the_batch_only():
    torch.manual_seed(0)
    network = InfluentialNetwork(num_items=9, dim=8, layers=1, max_length=6, num_users=3)
    network.loss(torch.randint(1, 9, (40, 7)), torch.tensor([1, 3] * 20)).backward()
    changed = network.user_embedding.weight.grad.abs().sum(dim=1) > 0
    assert changed.tolist() == [True, False, True]


def test_every_position_attends_to_at_least_one_position(network):
    bias = network._bias(torch.tensor([0, 2]), None, 4)
    assert bias.isfinite().any(dim=-1).all()


def test_without_an_objective_it_equals_a_sasrec(network):
    plain = SASRec(num_items=9, dim=8, layers=3, max_length=6).eval()
    shared = {
        name: value for name, value in network.state_dict().items() if "objective" not in name
    }
    plain.load_state_dict(shared)
    items = torch.tensor([[3, 1, 4, 1, 0, 0], [5, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(network(items), plain(items))


def test_the_objective_is_the_last_item_after_truncation():
    torch.manual_seed(0)
    rows = torch.randint(1, 9, (400, 30))
    rows[:100, 12:] = 0
    cut, objectives = _with_objectives(rows)
    lengths = (cut > 0).sum(dim=1)
    has_one = objectives > 0
    assert torch.equal(cut[has_one, lengths[has_one] - 1], objectives[has_one])
    assert torch.equal(cut[~has_one], rows[~has_one])
    assert 0.04 < float((~has_one).float().mean()) < 0.18
    assert lengths[:100].unique().tolist() == [12]
    assert lengths[100:].unique().tolist() == list(range(20, 31))
    assert torch.equal(cut, torch.where(cut > 0, rows, 0))


def test_dropout_preserves_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    dropout = Dropout(0.3)
    values = dropout(torch.ones(200_003))
    dropped = float((values == 0).float().mean())
    assert dropped == pytest.approx(77 / 256, abs=0.005)
    assert float(values.mean()) == pytest.approx(1, abs=0.01)
    assert values.unique().tolist() == pytest.approx([0, 256 / 179])
    pairs = (values[:-1] == 0) & (values[1:] == 0)  # bytes of one draw are independent
    assert float(pairs.float().mean()) == pytest.approx(dropped**2, abs=0.005)
    assert torch.equal(dropout.eval()(torch.ones(5)), torch.ones(5))
    torch.manual_seed(1)
    first = dropout.train()(torch.ones(50))
    torch.manual_seed(1)
    assert torch.equal(dropout(torch.ones(50)), first)
