"""Arithmetic of attacks on counted cases."""

from types import SimpleNamespace

import pytest
import torch

from lightning_plugins.metrics import AttackScores


def result(status, queries=10, words=20, changed_words=2):
    return SimpleNamespace(status=status, queries=queries, words=words, changed_words=changed_words)


def test_the_scores_of_ten_texts_are_counted():
    metric = AttackScores()
    metric.update([result("skipped", queries=1)] * 2 + [result("failed", queries=30)] * 5)
    metric.update([result("succeeded", words=10, changed_words=c) for c in (1, 2, 6)])
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(
        {
            "original_accuracy": 0.8,
            "accuracy_under_attack": 0.5,
            "attack_success_rate": 3 / 8,
            "queries": (5 * 30 + 3 * 10) / 8,
            "changed_words": 0.3,
        }
    )


def test_the_success_rate_is_one_minus_aua_over_oa():
    metric = AttackScores()
    metric.update([result("skipped")] * 3 + [result("failed")] * 4 + [result("succeeded")] * 7)
    scores = metric.compute()
    ratio = scores["accuracy_under_attack"] / scores["original_accuracy"]
    torch.testing.assert_close(scores["attack_success_rate"], 1 - ratio)


def test_a_mean_over_nothing_is_not_a_number():
    metric = AttackScores()
    metric.update([result("skipped")])
    scores = metric.compute()
    assert scores["original_accuracy"] == 0
    assert scores["accuracy_under_attack"] == 0
    assert all(scores[n].isnan() for n in ("attack_success_rate", "queries", "changed_words"))


def test_processes_add_up():
    whole, parts = AttackScores(), [AttackScores(), AttackScores()]
    statuses = ["failed", "succeeded", "skipped", "succeeded", "failed"]
    for place, status in enumerate(statuses):
        for metric in (whole, parts[place % 2]):
            metric.update([result(status, queries=place, changed_words=place)])
    merged = parts[0]
    merged.merge_state(parts[1])
    assert {k: v.item() for k, v in merged.compute().items()} == pytest.approx(
        {k: v.item() for k, v in whole.compute().items()}
    )


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="status='won'"):
        AttackScores().update([result("won")])
