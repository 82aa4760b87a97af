"""Numbers in what a judge replies, and what becomes of replies without one."""

import pytest

from lightning_plugins.litmodels.recommendation.language.judge import PathJudge, probability
from lightning_plugins.litmodels.recommendation.language.reply_cache import Reply
from lightning_plugins.nn.recommendation import Catalogue, Item

CATALOGUE = Catalogue([Item(f"Film {number}", 1990) for number in range(1, 5)])


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("0", 0),
        ("1", 1),
        ("1.0", 1),
        ("0.65", 0.65),
        (".7", 0.7),
        ("0,7", 0.7),
        ("70%", 0.7),
        ("62.5 %", 0.625),
        ("The mean is 0.8.", 0.8),
        ("<think>0.1 and 0.2</think>0.15", 0.15),
        ("**0.4**", 0.4),
        ("0.4\n0.4", 0.4),
        ("150%", 1),
        ("1.2", 1),
        ("", None),
        ("high", None),
        ("0.2 or 0.4", None),
        ("-0.3", None),
        ("7", None),
        ("10", None),
        ("Film 1990", None),
        ("I'm sorry", None),
    ],
)
def test_one_number_is_read_or_none(reply, number):
    assert probability(reply) == (number if number is None else pytest.approx(number))


class Judge:
    """Replies with the n-th text to the n-th turn, and to all in it alike."""

    def __init__(self, *texts):
        self.texts, self.turns = texts, []

    def complete(self, conversations, seed=0, schema=None):
        self.turns.append([[dict(message) for message in talk] for talk in conversations])
        text = self.texts[min(len(self.turns), len(self.texts)) - 1]
        return [Reply(text if len(talk) > 2 else "because") for talk in conversations]


def test_reasons_come_first_and_the_mean_after():
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


def test_a_reply_without_a_number_is_asked_for_again_and_then_counted():
    model = Judge("", "no idea", "0.25")
    assert PathJudge(model).relatedness(CATALOGUE, [[1, 2]]) == [0.25]
    assert len(model.turns) == 3
    judge = PathJudge(Judge("", "no idea"), max_tries=2)
    assert judge.relatedness(CATALOGUE, [[1, 2], [2, 3]]) == [None, None]
    assert dict(judge.report) == {"judged": 2, "no number": 2}
    with pytest.raises(ValueError, match="max_tries=0: expected at least 1"):
        PathJudge(Judge(""), max_tries=0)
