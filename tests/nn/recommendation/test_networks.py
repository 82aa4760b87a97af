"""Next-item networks: causality, padding and loss."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_plugins.nn.recommendation import GRU4Rec, SASRec
from lightning_plugins.nn.recommendation.item_network import sampled_cross_entropy


@pytest.fixture(params=[SASRec, GRU4Rec])
def network(request):
    torch.manual_seed(0)
    return request.param(num_items=11, dim=8, max_length=6, dropout=0.2).eval()


HISTORY = torch.tensor([[3, 1, 4, 1, 5, 9]])


def test_states_of_next_item_networks_do_not_depend_on_later_items(network):
    later = HISTORY.clone()
    later[0, 4:] = torch.tensor([2, 7])
    torch.testing.assert_close(network.encode(HISTORY)[:, :4], network.encode(later)[:, :4])
    assert not torch.allclose(network.encode(HISTORY)[:, 4], network.encode(later)[:, 4])


def test_padding_changes_no_score(network):
    short = torch.tensor([[3, 1, 4]])
    padded = torch.tensor([[3, 1, 4, 0, 0, 0]])
    torch.testing.assert_close(network(padded), network(short))


def test_of_a_long_history_only_the_latest_items_count(network):
    rows = torch.tensor([[7, 8, 2, 6, 3, 1, 4, 1, 5, 9], [7, 8, 2, 3, 1, 4, 0, 0, 0, 0]])
    expected = torch.cat([network(row[row > 0][-6:][None]) for row in rows])
    torch.testing.assert_close(network(rows), expected)


def test_windows_beyond_max_length_are_refused(network):
    with pytest.raises(ValueError, match="windows of 8 items: the network has max_length=6"):
        network.loss(torch.ones(2, 8, dtype=torch.int64))


def test_padding_is_never_recommended_and_gets_no_gradient(network):
    assert network(HISTORY)[0, 0] == -torch.inf
    network.loss(torch.tensor([[3, 1, 4, 0, 0, 0, 0]])).backward()
    assert not network.item_embedding.weight[0].any()
    assert not network.item_embedding.weight.grad[0].any()


def test_the_loss_is_the_mean_cross_entropy_of_each_next_item(network):
    sequences = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 0, 0, 0, 0]])
    expected = [
        cross_entropy(network(sequence[None, :end]), sequence[None, end])
        for sequence in sequences
        for end in range(1, 7)
        if sequence[end]
    ]
    torch.testing.assert_close(network.loss(sequences), torch.stack(expected).mean())


def test_the_sampled_sum_of_the_softmax_is_unbiased_and_exact_with_all_items():
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(31, 4).requires_grad_(False)
    states, targets = torch.randn(6, 4), torch.randint(1, 31, (6,))
    exact = cross_entropy(states @ embedding.weight[1:].T, targets - 1, reduction="none")
    torch.testing.assert_close(sampled_cross_entropy(states, targets, embedding, 30), exact.mean())
    one = slice(0, 1)
    draws = [
        float(torch.exp(sampled_cross_entropy(states[one], targets[one], embedding, 10)))
        for _ in range(4000)
    ]
    expected = float(exact[0].exp())  # the sum over all items, divided by the target's term
    assert sum(draws) / len(draws) == pytest.approx(expected, rel=0.03)


def test_training_with_sampled_items_does_not_compute_all_logits(network):
    sequences = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    full = network.loss(sequences)
    network.negatives = 10  # all items other than the target
    torch.testing.assert_close(network.loss(sequences), full)
    network.negatives = 3
    network.loss(sequences).backward()
    rows = network.item_embedding.weight.grad.abs().sum(dim=1)
    assert int((rows > 0).sum()) <= 7 + 3


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (SASRec, {"num_items": 0}, "num_items=0: expected at least 1"),
        (SASRec, {"num_items": 5, "dim": 9, "heads": 2}, "dim=9: expected a multiple of heads=2"),
        (SASRec, {"num_items": 5, "layers": 0}, "layers=0: expected at least 1"),
        (GRU4Rec, {"num_items": 5, "layers": 0}, "layers=0: expected at least 1"),
        (GRU4Rec, {"num_items": 5, "dropout": 1.0}, r"dropout=1.0: expected a probability"),
    ],
)
def test_wrong_sizes_are_refused(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)
