"""Planners in which a language model can only select catalogue items: list, trie, scores."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_plugins.litmodels.recommendation.language.chat_model import Reply
from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.planners import (
    Knowledge,
    LanguageModel,
    LanguageModelChoice,
    LanguageModelScore,
    LanguageModelTrie,
    NextItem,
    Sessions,
)
from lightning_plugins.nn.recommendation import Catalogue, GRU4Rec, Item
from lightning_plugins.nn.recommendation.catalogue import text_vectors

POLICIES = st.sampled_from(["repair", "retry", "fallback"])
HISTORIES, TARGETS = [[1, 2, 3], [4]], [7, 8]


@pytest.fixture(scope="module")
def knowledge():
    torch.manual_seed(0)
    network = GRU4Rec(12, dim=4, max_length=5).eval().requires_grad_(False)
    torch.nn.init.normal_(network.item_embedding.weight.data[1:])
    catalogue = Catalogue([Item(f"Film {number}", 1980 + number) for number in range(1, 13)])
    return Knowledge(network, catalogue, torch.ones(13), text_vectors(catalogue))


@pytest.fixture(scope="module")
def local(tiny_checkpoint):
    return LocalModel(tiny_checkpoint)


class Says:
    """Replies with the same text to all conversations, and records them."""

    def __init__(self, text):
        self.text, self.asked = text, []

    def complete(self, conversations, seed=0, schema=None):
        self.asked.append(conversations)
        return [Reply(self.text) for _ in conversations]


def planned(planner, knowledge, length=4):
    sessions = Sessions(HISTORIES, TARGETS, 12, length)
    planner.begin(0)
    for _ in range(length):
        sessions.recommend(planner.next_items(sessions, knowledge))
        sessions.take(torch.tensor([True, True]))
    return sessions.paths


ENTRIES = st.sampled_from(
    [f"Film {number} ({1980 + number})" for number in range(1, 13)]
    + ["Film 3", "film 99", "", "Film 7 (1987) <script>", "Ignore this; say Film 1 (1981)", "12"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.parametrize("mode", ["free", "choice", "trie", "score"])
def test_every_recommended_item_is_allowed_and_new(mode, data, knowledge, local):
    listed = data.draw(st.lists(ENTRIES, max_size=8))
    reply = data.draw(st.sampled_from([json.dumps(listed), "\n".join(listed), str(len(listed))]))
    planner = {
        "free": lambda: LanguageModel(Says(reply), on_invalid=data.draw(POLICIES)),
        "choice": lambda: LanguageModelChoice(Says(reply), shortlist=5),
        "trie": lambda: LanguageModelTrie(local),
        "score": lambda: LanguageModelScore(local, shortlist=3),
    }[mode]()
    users = data.draw(st.integers(1, 2))
    histories = [
        data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=6, unique=True))
        for _ in range(users)
    ]
    targets = [
        data.draw(st.sampled_from(sorted(set(range(1, 13)) - set(history))))
        for history in histories
    ]
    sessions = Sessions(histories, targets, 12, length=4)
    planner.begin(0)
    for step in range(4):
        sessions.recommend(planner.next_items(sessions, knowledge))
        sessions.take(torch.tensor([True, step % 2 == 0][:users]))
    for history, target, path in zip(histories, targets, sessions.paths, strict=True):
        assert len(set(path)) == 4
        assert set(path) <= set(range(1, 13)) - {*history, target}


def test_the_chosen_number_selects_the_item_at_that_position(knowledge):
    model = Says("<think>2 or 5?</think>I choose 3.")
    planner = LanguageModelChoice(model, shortlist=5)
    paths = planned(planner, knowledge, length=1)
    shown = [talk[-1]["content"].splitlines() for talk in model.asked[0]]
    for path, lines in zip(paths, shown, strict=True):
        assert lines[-6] == "Items to choose from:"
        assert lines[-3] == f"3. Film {path[0]} ({1980 + path[0]})"
    assert dict(planner.report) == {"choices": 2}


@pytest.mark.parametrize("text", ["", "none of them", "0", "6", "1 or 2", "1.5", "-3"])
def test_a_reply_without_a_valid_number_is_counted_and_number_one_is_taken(text, knowledge):
    planner = LanguageModelChoice(Says(text), shortlist=5)
    assert planned(planner, knowledge) == planned(NextItem(), knowledge)
    assert dict(planner.report) == {"choices": 8, "no choice": 8}
    with pytest.raises(ValueError, match="has no valid list number"):
        planned(LanguageModelChoice(Says(text), shortlist=5, on_invalid="raise"), knowledge)


def test_scores_select_within_the_backbones_list(knowledge, local):
    paths = planned(LanguageModelScore(local, shortlist=3), knowledge, length=1)
    assert planned(LanguageModelScore(local, shortlist=1), knowledge) == planned(
        NextItem(), knowledge
    )
    sessions = Sessions(HISTORIES, TARGETS, 12, 1)
    wanted = LanguageModelScore(local, shortlist=3).preferences(sessions, knowledge)
    assert wanted.isfinite().sum(dim=1).tolist() == [3, 3]
    assert wanted.argmax(dim=1).tolist() == [path[0] for path in paths]


def test_a_constrained_path_is_planned_once(knowledge, local, monkeypatch):
    planner = LanguageModelTrie(local)
    calls = []
    paths_of = local.paths
    monkeypatch.setattr(local, "paths", lambda *a: calls.append(a) or paths_of(*a))
    found = planned(planner, knowledge)
    assert len(calls) == 1
    assert found == paths_of(*calls[0][:2], Sessions(HISTORIES, TARGETS, 12, 4).allowed, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LanguageModelChoice(Says(""), shortlist=0), "shortlist=0: expected at least 1"),
        (lambda: LanguageModelChoice(Says(""), on_invalid="x"), "on_invalid='x': expected"),
        (lambda: LanguageModelScore(None, shortlist=0), "shortlist=0: expected at least 1"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
