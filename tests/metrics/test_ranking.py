"""Ranks and ranking metrics, compared with hand-computed cases and an oracle."""

import math

import numpy as np
import pytest
import torch

from lightning_plugins.metrics.mean_with_error import MeanWithError
from lightning_plugins.metrics.ranking import MRR, NDCG, HitRate, target_ranks


def test_ranks_equal_a_case_computed_by_hand():
    scores = torch.tensor([[-math.inf, 3.0, 1.0, 2.0], [-math.inf, 0.0, 0.0, 0.0]])
    assert target_ranks(scores, torch.tensor([3, 1])).tolist() == [2, 3]  # ties count against


def test_excluded_items_are_not_ranked():
    scores = torch.tensor([[-math.inf, 5.0, -math.inf, 1.0]])
    assert target_ranks(scores, torch.tensor([3])).tolist() == [2]
    assert target_ranks(scores, torch.tensor([2])).tolist() == [3]  # after all ranked items


def test_a_nan_score_is_ranked_last():
    assert target_ranks(torch.tensor([[1.0, math.nan, 2.0]]), torch.tensor([1])).tolist() == [3]


def test_gains_equal_a_case_computed_by_hand():
    ranks = torch.tensor([1, 2, 3, 11])
    values = {}
    for metric in (HitRate(2), NDCG(2), MRR(2)):
        metric.update(ranks)
        values[type(metric).__name__] = float(metric.compute())
    expected = {"HitRate": 2 / 4, "NDCG": (1 + 1 / math.log2(3)) / 4, "MRR": 1.5 / 4}
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_metrics_equal_sorted_lists_on_random_data(k):
    generator = np.random.default_rng(k)
    scores, targets = generator.normal(size=(200, 50)), generator.integers(0, 50, 200)
    places = [
        int(np.flatnonzero(np.argsort(-row) == target)[0])
        for row, target in zip(scores, targets, strict=True)
    ]
    oracle = {
        HitRate: [float(place < k) for place in places],
        NDCG: [math.log(2) / math.log(place + 2) * (place < k) for place in places],
        MRR: [1 / (place + 1) * (place < k) for place in places],
    }
    ranks = target_ranks(torch.tensor(scores), torch.tensor(targets))
    for cls, gains in oracle.items():
        metric = cls(k)
        for part in ranks.split(64):
            metric.update(part)
        assert float(metric.compute()) == pytest.approx(np.mean(gains), abs=1e-6)
        error = np.std(gains, ddof=1) / math.sqrt(len(gains))
        assert float(metric.standard_error()) == pytest.approx(error, abs=1e-6)


def test_one_value_has_no_standard_error():
    metric = MeanWithError()
    metric.update(torch.tensor([2.0]))
    assert metric.compute() == 2
    assert metric.standard_error().isnan()


def test_merged_states_equal_one_update():
    values = torch.randn(10, generator=torch.Generator().manual_seed(0))
    whole, half, other = MeanWithError(), MeanWithError(), MeanWithError()
    whole.update(values)
    half.update(values[:3])
    other.update(values[3:])
    half.merge_state(other)
    torch.testing.assert_close(half.compute(), whole.compute())
    torch.testing.assert_close(half.standard_error(), whole.standard_error())


def test_a_list_without_length_is_refused():
    with pytest.raises(ValueError, match="k=0: expected at least 1"):
        NDCG(0)
