"""True positive rates at low false positive rates against counting and torchmetrics."""

import warnings
from statistics import NormalDist

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


def test_too_few_negatives_for_a_rate_are_reported():
    metric = TPRAtFPR(0.01)
    metric.update(torch.linspace(0, 1, 99), torch.tensor([0] * 98 + [1]))
    with pytest.warns(UserWarning, match=r"98 negatives are too few .* at least 100"):
        metric.compute()
    metric.update(torch.zeros(2), torch.tensor([0, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.reset()
        metric.update(torch.linspace(0, 1, 101), torch.tensor([0] * 100 + [1]))
        metric.compute()


def test_the_interval_covers_the_true_rate_and_shrinks_with_the_number_of_texts():
    generator = torch.Generator().manual_seed(0)
    normal = NormalDist()
    true = 1 - normal.cdf(normal.inv_cdf(0.95) - 2)
    widths = {}
    for count in (60, 1000):
        covered, widths[count] = 0, 0.0
        for _ in range(60):
            metric = TPRAtFPR(0.05)
            labels = torch.arange(2 * count) % 2
            metric.update(torch.randn(2 * count, generator=generator) + 2 * labels, labels)
            low, high = metric.interval()
            covered += bool(low <= true <= high)
            widths[count] += float(high - low) / 60
        assert covered >= 56
    assert widths[1000] < 0.5 * widths[60]
    few = TPRAtFPR(0.01)
    few.update(torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 0, 0, 1]))
    assert few.interval()[0] == 0.0
    with pytest.raises(ValueError, match="confidence=1"):
        few.interval(1)
