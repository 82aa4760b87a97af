"""PathJudge: its two turns, and replies without a number."""

import pytest

from lightning_plugins.litmodels.recommendation.language.chat_model import Reply
from lightning_plugins.litmodels.recommendation.language.judge import PathJudge
from lightning_plugins.nn.recommendation import Catalogue, Item

CATALOGUE = Catalogue([Item(f"Film {number}", 1990) for number in range(1, 5)])


class Judge:
    """Replies to all conversations of the n-th turn with the n-th text."""

    def __init__(self, *texts):
        self.texts, self.turns = texts, []

    def complete(self, conversations, seed=0, schema=None):
        self.turns.append([[dict(message) for message in talk] for talk in conversations])
        text = self.texts[min(len(self.turns), len(self.texts)) - 1]
        return [Reply(text if len(talk) > 2 else "because") for talk in conversations]


def test_the_first_turn_requests_reasons_and_the_second_the_mean():
    model = Judge("", "0.5")
    judge = PathJudge(model)
    assert judge.acceptability(CATALOGUE, [[1], [2]], [[3, 4], [4]]) == [0.5, 0.5]
    first, second = model.turns
    user = first[0][1]["content"].splitlines()
    assert user == [
        "History, oldest first:",
        "- Film 1 (1990)",
        "Recommendations:",
        "1. Film 3 (1990)",
        "2. Film 4 (1990)",
    ]
    assert [message["role"] for message in second[0]] == ["system", "user", "assistant", "user"]
    assert dict(judge.report) == {"judged": 2, "no number": 0}


def test_a_reply_without_a_number_is_requested_again_and_then_counted():
    model = Judge("", "no idea", "0.25")
    assert PathJudge(model).relatedness(CATALOGUE, [[1, 2]]) == [0.25]
    assert len(model.turns) == 3
    judge = PathJudge(Judge("", "no idea"), max_tries=2)
    assert judge.relatedness(CATALOGUE, [[1, 2], [2, 3]]) == [None, None]
    assert dict(judge.report) == {"judged": 2, "no number": 2}
    with pytest.raises(ValueError, match="max_tries=0: expected at least 1"):
        PathJudge(Judge(""), max_tries=0)
