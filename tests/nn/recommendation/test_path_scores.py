"""Path scores, compared with one forward pass per prefix; text vectors, computed by hand."""

import math

import pytest
import torch

from lightning_plugins.nn.recommendation import Catalogue, Item, SASRec
from lightning_plugins.nn.recommendation.catalogue import text_vectors
from lightning_plugins.nn.recommendation.item_network import padded, unpadded
from lightning_plugins.nn.recommendation.path_scores import path_scores

HISTORIES = [[3, 1, 4, 7, 5, 9], [2]]
PATHS = [[6, 8], [7, 1, 3]]
TARGETS = [2, 9]


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = SASRec(num_items=9, dim=8, max_length=4, dropout=0.2).eval()
    torch.nn.init.normal_(made.item_embedding.weight)  # so that items differ
    return made


def log_probs(network, sequence):
    return network(torch.tensor([sequence[-network.max_length :]]))[0].log_softmax(0)


def test_scores_equal_one_forward_pass_per_prefix(network):
    scores = path_scores(network, HISTORIES, PATHS, TARGETS)
    for place, (history, path, target) in enumerate(zip(HISTORIES, PATHS, TARGETS, strict=True)):
        before, after = log_probs(network, history), log_probs(network, history + path)
        others = [item for item in range(1, 10) if item not in {*history, *path, target}]
        steps = [log_probs(network, history + path[:k])[item] for k, item in enumerate(path)]
        expected = {
            "log_prob_before": before[target],
            "log_prob_after": after[target],
            "rank_before": 1 + sum(bool(before[item] > before[target]) for item in others),
            "rank_after": 1 + sum(bool(after[item] > after[target]) for item in others),
            "step_log_prob": sum(steps) / len(steps),
        }
        for name, value in expected.items():
            assert float(getattr(scores, name)[place]) == pytest.approx(float(value), abs=1e-5)


@torch.no_grad()
def test_scores_equal_an_oracle_on_random_data_within_1e_6():
    torch.manual_seed(1)
    network = SASRec(num_items=40, dim=8, max_length=6, dropout=0.2).double().eval()
    torch.nn.init.normal_(network.item_embedding.weight)
    draws = [(torch.randperm(40) + 1).tolist() for _ in range(30)]
    histories = [draw[: 1 + place % 9] for place, draw in enumerate(draws)]
    paths = [draw[10 : 11 + place % 5] for place, draw in enumerate(draws)]
    targets = [draw[20] for draw in draws]
    scores = path_scores(network, histories, paths, targets)
    for place, (history, path, target) in enumerate(zip(histories, paths, targets, strict=True)):
        chances = [
            log_probs(network, history + path[:step]).exp().numpy() for step in range(len(path) + 1)
        ]
        free = [item for item in range(1, 41) if item not in {*history, *path}]
        ranks = [sorted(free, key=lambda item: -p[item]).index(target) + 1 for p in chances]
        steps = [math.log(p[item]) for p, item in zip(chances, path, strict=False)]
        found = {n: float(v[place]) for n, v in vars(scores).items() if n != "curves"}
        curve = [math.log(p[target]) for p in chances]
        assert scores.curves[place] == pytest.approx(curve, abs=1e-6)
        assert found == pytest.approx(
            {
                "log_prob_before": math.log(chances[0][target]),
                "log_prob_after": math.log(chances[-1][target]),
                "rank_before": ranks[0],
                "rank_after": ranks[-1],
                "step_log_prob": sum(steps) / len(steps),
            },
            abs=1e-6,
        )


def test_an_empty_path_has_equal_scores_before_and_after(network):
    scores = path_scores(network, HISTORIES, [[], []], TARGETS)
    assert torch.equal(scores.log_prob_before, scores.log_prob_after)
    assert torch.equal(scores.rank_before, scores.rank_after)
    assert scores.step_log_prob.isnan().all()


def test_padding_keeps_the_latest_items():
    rows = padded([[1, 2, 3], [4], []], 2)
    assert rows.tolist() == [[2, 3], [4, 0], [0, 0]]
    assert unpadded(rows) == [[2, 3], [4], []]


def test_text_vectors_weight_the_words_of_titles_and_genres():
    items = [Item("Star Wars", 1977, ("War",)), Item("War Star"), Item("5"), Item("Ran", 1985)]
    vectors = text_vectors(Catalogue(items))
    products = vectors @ vectors.T
    assert products.diagonal().tolist() == pytest.approx([0, 1, 1, 0, 1])  # padding, and "5"
    star, other = math.log(5 / 3) + 1, math.log(5 / 2) + 1  # in two items of four, and in one
    cosine = star**2 / math.sqrt((star**2 + 2 * other**2) * (star**2 + other**2))
    assert products[1, 2] == pytest.approx(cosine)  # "wars", the genre War and "war" are three
    assert products[1, 4] == 0
