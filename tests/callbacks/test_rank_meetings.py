"""Ranks that end at different moments still read why."""

import threading
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import rank_meetings


@pytest.fixture
def ranks(monkeypatch):
    """Return the meetings of both ranks of a run, in one process."""
    store = dist.HashStore()
    monkeypatch.setattr(rank_meetings, "default_store", lambda: store)
    monkeypatch.setattr(rank_meetings, "before_each_batch", lambda *_: lambda: None)
    monkeypatch.setattr(rank_meetings, "_numbers", iter([0, 0]))
    strategy = dict.fromkeys(rank_meetings._COLLECTIVE)
    return [
        rank_meetings.RankMeetings(
            SimpleNamespace(strategy=SimpleNamespace(**strategy), global_rank=rank, world_size=2)
        )
        for rank in range(2)
    ]


def test_the_first_rank_ends_its_store_only_after_the_other_ranks_have_read_it(ranks, monkeypatch):
    first, second = ranks
    errors, ended, answer = [], threading.Event(), second._answer

    def answer_late(*arguments):
        second._store.get("failed")
        ended.wait(0.2)
        return answer(*arguments)

    monkeypatch.setattr(second, "_answer", answer_late)

    def fail(rank, place):
        try:
            rank.meet(place)
        except MisconfigurationException as error:
            errors.append((place, ended.is_set(), str(error)))
            rank.report(error)

    slow = threading.Thread(target=fail, args=(second, "reduce"))
    slow.start()
    fail(first, "step")
    ended.set()
    slow.join(10)
    assert {place for place, *_ in errors} == {"step", "reduce"}
    assert not any(late for _, late, _ in errors)
    assert all("about to step" in text and "about to reduce" in text for *_, text in errors)


def test_a_store_that_ended_is_an_error_that_names_the_place(ranks, monkeypatch):
    def ended(*_):
        raise dist.DistNetworkError("Connection reset by peer")

    monkeypatch.setattr(ranks[1], "_answer", ended)
    with pytest.raises(RuntimeError, match="rank 1 is about to step, but the store"):
        ranks[1].meet("step")
