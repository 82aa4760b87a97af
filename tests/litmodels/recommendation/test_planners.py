"""Planners: the preferences of each, and that only allowed items are recommended."""

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.litmodels.recommendation.planners import (
    CoOccurrencePath,
    InfluentialBeam,
    InfluentialGreedy,
    InfluentialRecommender,
    Knowledge,
    NextItem,
    Planner,
    Popular,
    Rec2Inf,
    Sessions,
    TextBridge,
    default_planners,
)
from lightning_plugins.litmodels.recommendation.planners.target_directed import log_transitions
from lightning_plugins.litmodels.recommendation.user_models import (
    ClicksWhatItLikes,
    TakesTheLikely,
)
from lightning_plugins.nn.recommendation import Catalogue, GRU4Rec, InfluentialNetwork, Item
from lightning_plugins.nn.recommendation.catalogue import text_vectors

WORDS = ["red", "green", "blue", "old", "new"]


def knowledge(num_items=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = GRU4Rec(num_items, dim=4, max_length=5).eval().requires_grad_(False)
    network.item_embedding.weight[1:] = torch.randn(num_items, 4, generator=generator)
    items = [Item(f"{WORDS[n % 5]} {WORDS[n // 5 % 5]}", 1900 + n) for n in range(num_items)]
    catalogue = Catalogue(items)
    counts = torch.randint(0, 9, (num_items + 1,), generator=generator)
    sequences = torch.randint(1, num_items + 1, (20, 8), generator=generator).tolist()
    return Knowledge(network, catalogue, counts, text_vectors(catalogue), sequences)


def test_users_without_training_items_do_not_change_the_walk():
    """A time split has such users: all their items are later than the training part."""
    known = knowledge()
    steps = log_transitions(replace(known, sequences=[[], [3], *known.sequences]))
    torch.testing.assert_close(steps, log_transitions(known))


class Hostile(Planner):
    """Prefers forbidden items, and returns NaN."""

    def preferences(self, sessions, knowledge):
        wanted = torch.full(sessions.allowed.shape, torch.nan)
        return torch.where(
            sessions.allowed, -torch.inf, torch.where(torch.rand(()) > 0.5, 1, wanted)
        )


@settings(max_examples=5, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", [*default_planners(), "beam", "hostile"])
def test_every_recommended_item_is_allowed_and_new(name, data, seed):
    planner = ({"hostile": Hostile(), "beam": InfluentialBeam()} | default_planners())[name]
    known = knowledge(seed=seed)
    if planner.needs == "irn":
        planner.network = InfluentialNetwork(12, dim=4, max_length=5).eval()
    users = data.draw(st.integers(1, 3))
    histories = [
        data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True))
        for _ in range(users)
    ]
    targets = [
        data.draw(st.sampled_from(sorted(set(range(1, 13)) - set(history))))
        for history in histories
    ]
    sessions = Sessions(histories, targets, 12, length=5)
    planner.begin(seed)
    for _ in range(5):
        sessions.recommend(planner.next_items(sessions, known))
        sessions.take(torch.rand(users) < 0.5)
    for history, target, path in zip(histories, targets, sessions.paths, strict=True):
        assert len(set(path)) == 5
        assert set(path) <= set(range(1, 13)) - {*history, target}


def sessions_of(known):
    return Sessions([[1, 2, 3], [4]], [7, 8], known.catalogue.num_items, length=4)


def test_ipg_equals_its_formula():
    known = knowledge()
    sessions = sessions_of(known)
    items = known.backbone.item_embedding.weight.numpy()
    states = sessions.states(known.backbone).numpy()
    wanted = InfluentialGreedy().preferences(sessions, known).numpy()

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for user, target in enumerate([7, 8]):
        u, t = states[user], items[target]
        for item in range(1, 13):
            v = items[item]
            expected = (cosine(v, t) - cosine(u, t)) / (1 + np.exp(-(u @ v)))
            assert wanted[user, item] == pytest.approx(expected, abs=1e-5)


def followed(planner, known, length=3):
    sessions = Sessions([[1, 2, 3], [4]], [7, 8], 12, length)
    for _ in range(length):
        sessions.recommend(planner.next_items(sessions, known))
        sessions.take(torch.ones(2, dtype=torch.bool))
    return sessions.paths


def total_guidance(known, history, path, target):
    total = 0.0
    for step, item in enumerate(path):
        sessions = Sessions([history + path[:step]], [target], 12, 1)
        total += float(InfluentialGreedy().preferences(sessions, known)[0, item])
    return total


def test_a_beam_of_one_is_greedy_and_a_full_beam_finds_the_best_path():
    for seed in range(4):
        known = knowledge(seed=seed)
        greedy = followed(InfluentialGreedy(), known, length=2)
        assert followed(InfluentialBeam(1), known, length=2) == greedy
        found = followed(InfluentialBeam(200), known, length=2)
        for history, target, path in zip([[1, 2, 3], [4]], [7, 8], found, strict=True):
            free = set(range(1, 13)) - {*history, target}
            best = max(
                total_guidance(known, history, [*pair], target) for pair in permutations(free, 2)
            )
            assert total_guidance(known, history, path, target) == pytest.approx(best, abs=1e-5)


def test_rec2inf_selects_the_most_similar_item_of_the_backbones_list():
    known = knowledge()
    sessions = sessions_of(known)
    logits = known.backbone.logits(sessions.states(known.backbone))
    items = known.backbone.item_embedding.weight
    chosen = Rec2Inf(k=3).next_items(sessions, known).tolist()
    for user, target in enumerate([7, 8]):
        allowed = [item for item in range(1, 13) if sessions.allowed[user, item]]
        best = sorted(allowed, key=lambda item: -float(logits[user, item]))[:3]
        assert chosen[user] == max(best, key=lambda item: float(items[item] @ items[target]))


def test_a_list_of_one_equals_next_item_and_popular_has_the_highest_count():
    known = knowledge()
    sessions = sessions_of(known)
    next_items = NextItem().next_items(sessions, known)
    assert torch.equal(Rec2Inf(k=1).next_items(sessions, known), next_items)
    assert torch.equal(TextBridge(shortlist=1).next_items(sessions, known), next_items)
    counts = known.item_counts.expand(2, -1)
    taken = Popular().next_items(sessions, known)
    assert torch.equal(
        counts.gather(1, taken[:, None])[:, 0],
        counts.masked_fill(~sessions.allowed, -1).max(dim=1).values,
    )


def test_the_last_step_of_the_text_bridge_maximizes_similarity_to_the_target():
    known = knowledge()
    sessions = Sessions([[1]], [9], 12, length=1)  # one step, so only the target counts
    (chosen,) = TextBridge().next_items(sessions, known).tolist()
    products = known.text_vectors @ known.text_vectors[9]
    best = products[[item for item in range(2, 13) if item != 9]].max()
    assert float(products[chosen]) == pytest.approx(float(best))


def test_forbidden_items_are_refused():
    sessions = Sessions([[1, 2]], [3], 5, length=2)
    for item in (0, 1, 3):
        with pytest.raises(ValueError, match=f"item {item} is not allowed on the path of user 0"):
            sessions.recommend(torch.tensor([item]))
    sessions.recommend(torch.tensor([4]))
    with pytest.raises(ValueError, match="item 4 is not allowed"):
        sessions.recommend(torch.tensor([4]))
    sessions.recommend(torch.tensor([5]))
    assert Popular().next_items(sessions, knowledge(5)).tolist() == [0]


@pytest.mark.parametrize("name", [*default_planners(), "beam"])
def test_every_planner_supports_empty_histories_and_ends_a_path_without_items_left(name):
    known, planner = knowledge(), ({"beam": InfluentialBeam()} | default_planners())[name]
    if planner.needs == "irn":
        planner.network = InfluentialNetwork(12, dim=4, max_length=5).eval()
    sessions = Sessions([[], [1, 2]], [7, 7], 12, length=4, candidates=[[3, 4], [1, 2, 7, 9]])
    planner.begin(0)
    for _ in range(4):
        items = planner.next_items(sessions, known)
        sessions.recommend(items)
        sessions.take(torch.ones(2, dtype=torch.bool))
    assert sorted(sessions.paths[0]) == [3, 4]
    assert sessions.paths[1] == [9]
    assert sessions.taken == [sessions.paths[0], [1, 2, 9]]
    assert sessions.accepted == [[True, True], [True]]


def test_only_accepted_items_join_the_history():
    sessions = Sessions([[1], [2]], [3, 3], 6, length=2)
    sessions.recommend(torch.tensor([4, 5]))
    sessions.take(torch.tensor([True, False]))
    assert sessions.taken == [[1, 4], [2]]
    assert sessions.paths == [[4], [5]]
    assert sessions.last_taken().tolist() == [4, 2]


def test_a_user_accepts_items_ranked_high_among_new_items():
    known = knowledge()
    for rank in (1, 3):
        user_model = TakesTheLikely(rank)
        for item in (5, 6, 9, 12):
            sessions = sessions_of(known)
            sessions.recommend(torch.tensor([item, item]))
            logits = known.backbone.logits(sessions.states(known.backbone))
            expected = [
                sum(bool(logits[user, other] > logits[user, item]) for other in others) < rank
                for user, others in enumerate([set(range(4, 13)), set(range(1, 13)) - {4}])
            ]
            items = torch.tensor([item, item])
            assert user_model.accepts(sessions, items, known.backbone).tolist() == expected


def test_clicks_change_the_taste_and_boredom_lowers_their_probability():
    known = knowledge()
    vectors = torch.nn.functional.normalize(known.backbone.item_embedding.weight, dim=1).numpy()
    sessions = Sessions([[1, 2], [3]], [7, 8], 12, length=3)
    sessions.recommend(torch.tensor([4, 5]))
    sessions.take(torch.tensor([True, False]))
    sessions.recommend(torch.tensor([6, 9]))
    found = ClicksWhatItLikes(threshold=0.1, steepness=4).click_probabilities(
        sessions, torch.tensor([6, 9]), known.backbone
    )
    mean = (vectors[1] + vectors[2]) / 2
    first = 0.8 * mean / np.linalg.norm(mean) + 0.2 * vectors[4]
    tastes, boredoms = [first, vectors[3]], [0.8 * 0.1, 0.0]
    for user, item in enumerate([6, 9]):
        drive = 4 * (tastes[user] @ vectors[item] - boredoms[user] - 0.1)
        assert float(found[user]) == pytest.approx(1 / (1 + np.exp(-drive)), abs=1e-6)


def test_clicks_are_drawn_with_their_probability():
    known, user_model = knowledge(), ClicksWhatItLikes(threshold=0)
    sessions = Sessions([[1]] * 4000, [7] * 4000, 12, length=1)
    items = torch.full((4000,), 5)
    sessions.recommend(items)
    user_model.begin(0)
    clicks = user_model.accepts(sessions, items, known.backbone)
    chance = float(user_model.click_probabilities(sessions, items, known.backbone)[0])
    assert float(clicks.float().mean()) == pytest.approx(chance, abs=0.04)
    user_model.begin(0)
    assert torch.equal(user_model.accepts(sessions, items, known.backbone), clicks)


def test_the_walk_is_the_most_likely_of_all_walks():
    known = knowledge(num_items=5)
    counts, share = np.zeros((6, 6)), known.item_counts.numpy() / known.item_counts.sum().item()
    for sequence in known.sequences:
        for before, after in pairwise(sequence):
            counts[before, after] += 1
    steps = np.log((counts + share.clip(1e-9)) / (counts.sum(1, keepdims=True) + 1))
    sessions = Sessions([[1]], [5], 5, length=2)
    wanted = CoOccurrencePath().preferences(sessions, known)[0].numpy()
    for first in (2, 3, 4):
        walks = [steps[1, first] + steps[first, k] + steps[k, 5] for k in range(6)]
        assert wanted[first] == pytest.approx(max(walks), abs=1e-5)


def test_irn_returns_the_logits_of_its_network_given_the_target():
    known, planner = knowledge(), InfluentialRecommender()
    planner.network = InfluentialNetwork(12, dim=4, max_length=5).eval()
    sessions = sessions_of(known)
    wanted = planner.preferences(sessions, known)
    for user, (history, target) in enumerate([([1, 2, 3], 7), ([4], 8)]):
        items = torch.tensor([history])
        state = planner.network.state(items, torch.tensor([target]))
        torch.testing.assert_close(wanted[user], planner.network.logits(state)[0])


def test_a_planner_that_prefers_the_target_has_reached_it():
    class Wants(Planner):
        def preferences(self, sessions, knowledge):
            wanted = torch.zeros(sessions.allowed.shape)
            wanted[0, 7], wanted[1, 9] = 1, 1
            return wanted

    sessions = sessions_of(knowledge())
    items = Wants().next_items(sessions, knowledge())
    assert sessions.is_reached.tolist() == [True, False]
    assert items[1] == 9
    assert items[0] != 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rec2Inf(k=0), "k=0: expected at least 1"),
        (lambda: InfluentialBeam(width=0), "width=0: expected at least 1"),
        (lambda: TextBridge(shortlist=0), "shortlist=0: expected at least 1, or None"),
        (lambda: TakesTheLikely(rank=0), "rank=0: expected at least 1"),
        (lambda: ClicksWhatItLikes(steepness=0), "steepness=0: expected more than 0"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
