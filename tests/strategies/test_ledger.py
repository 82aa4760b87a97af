"""The ledger of communication."""

import pytest

from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes


def recorded():
    ledger = CommLedger()
    ledger.record(0, "gossip", 100, 1, 0.5)
    ledger.record(0, "gossip", 50, 2, 0.25)
    ledger.record(1, "merge", 30, 3)
    ledger.record(1, "measurement", 1000, 1)
    ledger.dropped.append({"agent": 2, "step": 7, "reason": "no response"})
    return ledger


def test_rounds_of_one_agent_and_kind_add_up():
    entry = recorded().of(0, "gossip")
    assert (entry.bytes_sent, entry.messages, entry.rounds) == (150, 3, 2)
    assert entry.waiting_seconds == 0.75
    assert recorded().total().bytes_sent == 1180
    assert recorded().total("gossip", "merge").bytes_sent == 180


def test_state_survives_a_round_trip_and_ledgers_of_agents_merge():
    whole = recorded()
    again = CommLedger()
    again.load_state_dict(whole.state_dict())
    assert again.state_dict() == whole.state_dict()
    other = CommLedger()
    other.record(3, "gossip", 7, 1)
    merged = CommLedger.merged([whole.state_dict(), other.state_dict()])
    assert merged.total().bytes_sent == 1187
    assert merged.agents == [0, 1, 3]
    assert len(CommLedger.merged([whole.state_dict()] * 2).dropped) == 1


def test_measurements_are_left_out_of_the_comparison_with_ddp():
    report = recorded().report(model_bytes=400, steps=10, num_agents=2)
    assert report["training_bytes"] == 180
    assert report["training_bytes_of_busiest_agent"] == 150
    assert report["ddp_bytes"] == 10 * 2 * 400  # 2 (n-1)/n = 1 for two
    assert report["times_less_than_ddp"] == pytest.approx(8000 / 180)
    assert report["by_kind"]["measurement"]["bytes_sent"] == 1000


def test_a_ring_all_reduce_sends_each_part_around_the_ring_twice():
    # n parts of size 1/n, each sent n-1 times to be summed and n-1 times to be distributed.
    n, payload = 5, 1000
    sent_by_all = n * (n - 1) * payload / n * 2
    assert n * ring_all_reduce_bytes(payload, n) == sent_by_all
    assert ring_all_reduce_bytes(1000, 1) == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='gosip': expected one of start, gossip, merge"):
        CommLedger().record(0, "gosip")
