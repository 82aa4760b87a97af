"""True positive rates at low false positive rates against counting and torchmetrics."""

import pytest
import torch
from torchmetrics.classification import BinarySensitivityAtSpecificity

from lightning_plugins.metrics import TPRAtFPR, threshold_at_fpr


def test_the_threshold_has_the_allowed_number_of_false_positives():
    negatives = torch.arange(100.0)
    for max_fpr, allowed in [(0.0, 0), (0.01, 1), (0.05, 5), (0.29, 29)]:
        threshold = threshold_at_fpr(negatives, max_fpr)
        assert (negatives > threshold).sum() == allowed


def test_equal_scores_have_the_same_label():
    negatives = torch.tensor([0.2, 0.9, 0.9, 0.9])
    assert threshold_at_fpr(negatives, 0.5) == 0.9
    assert threshold_at_fpr(negatives, 0.75) == pytest.approx(0.2)


def test_the_rate_equals_torchmetrics_over_several_batches():
    generator = torch.Generator().manual_seed(0)
    for max_fpr in (0.01, 0.05, 0.5):
        ours, theirs = TPRAtFPR(max_fpr), BinarySensitivityAtSpecificity(1 - max_fpr - 1e-6)
        for _ in range(3):
            labels = torch.randint(2, (70,), generator=generator)
            scores = (torch.randn(70, generator=generator) + labels).sigmoid()
            ours.update(scores, labels)
            theirs.update(scores, labels)
        rate, _ = ours.compute()
        torch.testing.assert_close(rate, theirs.compute()[0])


def test_a_missing_class_gives_nan():
    for label in (0, 1):
        metric = TPRAtFPR()
        metric.update(torch.tensor([0.1, 0.9]), torch.tensor([label, label]))
        assert metric.compute()[0].isnan()
    assert TPRAtFPR.compute(TPRAtFPR())[1].isnan()


def test_a_max_fpr_outside_its_range_raises_an_error():
    with pytest.raises(ValueError, match="max_fpr=1"):
        TPRAtFPR(1)
