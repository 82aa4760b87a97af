"""AUROC by group against its definition, the share of pairs in the right order."""

import pytest
import torch

from lightning_plugins.metrics import GroupedAUROC

SCORES = torch.tensor([0.9, 0.2, 0.4, 0.6, 0.3, 0.8])
LABELS = torch.tensor([1, 0, 1, 0, 1, 0])


def test_each_group_is_compared_with_its_own_negatives():
    metric = GroupedAUROC()
    metric.update(SCORES[:4], LABELS[:4], ["a", "a", "b", "b"])
    metric.update(SCORES[4:], LABELS[4:], ["ж" * 40, "a"])
    # In a, 0.9 is above 0.2 and 0.8; in b, 0.4 is not above 0.6. The third group has no negative.
    assert metric.compute() == {"a": torch.tensor(1.0), "b": torch.tensor(0.0)}


def test_against_all_negatives_compares_with_the_negatives_of_all_groups():
    metric = GroupedAUROC(against_all_negatives=True)
    metric.update(SCORES, LABELS, ["m", "human", "n", "human", "n", "human"])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx({"m": 1.0, "n": 2 / 6})


def test_different_numbers_of_names_and_scores_raise_an_error():
    with pytest.raises(ValueError, match="names has 1 entries: expected 2"):
        GroupedAUROC().update(SCORES[:2], LABELS[:2], ["a"])
