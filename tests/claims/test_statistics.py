import math

import numpy as np
import pytest
from scipy import stats

from lightning_plugins.claims.statistics import (
    fieller_interval,
    holm,
    minimal_detectable_effect,
    one_sided_p,
    paired_interval,
    paired_t_power,
    tost,
)


@pytest.fixture(params=[2, 3, 5, 12])
def pairs(request):
    generator = np.random.default_rng(request.param)
    return generator.normal(1.0, 1.0, request.param), generator.normal(0.6, 1.0, request.param)


def test_paired_interval_equals_scipys_paired_t_test(pairs):
    a, b = pairs
    ours, theirs = paired_interval(list(a - b)), stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(0.95)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-10)
    assert ours.interval == pytest.approx((low, high), rel=1e-10)
    assert ours.estimate == pytest.approx(np.mean(a - b))
    assert ours.standard_deviation == pytest.approx(np.std(a - b, ddof=1))


def test_one_sided_p_equals_scipys(pairs):
    a, b = pairs
    assert one_sided_p(list(a - b)) == pytest.approx(
        stats.ttest_rel(a, b, alternative="less").pvalue, rel=1e-10
    )


def test_identical_differences_have_p_zero_and_zero_differences_have_p_one():
    assert paired_interval([0.5, 0.5, 0.5]).p == 0.0
    assert paired_interval([0.5, 0.5, 0.5]).interval == (0.5, 0.5)
    assert paired_interval([0.0, 0.0]).p == 1.0


def test_fewer_than_two_pairs_give_no_interval():
    assert math.isnan(paired_interval([]).estimate)
    assert math.isnan(paired_interval([1.0]).p)
    assert math.isnan(minimal_detectable_effect(math.nan, 1))


@pytest.mark.parametrize("margin", [0.1, 0.9, 3.0])
def test_tost_is_significant_exactly_if_the_ninety_percent_interval_is_inside(pairs, margin):
    differences = list(pairs[0] - pairs[1])
    inside, outside = tost(differences, margin)
    low, high = paired_interval(differences, 0.90).interval
    assert (inside <= 0.05) == (-margin <= low and high <= margin)
    lower = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert inside == pytest.approx(max(lower, upper), rel=1e-9)
    assert outside == pytest.approx(min(1 - lower, 1 - upper), rel=1e-9, abs=1e-12)


def test_at_the_ends_of_fiellers_interval_the_paired_test_has_p_005(pairs):
    a, b = pairs
    b = b + 20.0
    for end in fieller_interval(list(a), list(b), 0.95):
        assert stats.ttest_1samp(a - end * b, 0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_fiellers_interval_is_unbounded_if_the_denominator_may_be_zero():
    assert fieller_interval([1.0, 2.0, 3.0], [-1.0, 1.0, 0.5], 0.95) == (-math.inf, math.inf)


def test_holm_adjusts_step_down_and_counts_nan_as_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, math.nan]) == pytest.approx([0.04, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_power_equals_scipys_noncentral_t(n):
    critical = stats.t.ppf(0.975, n - 1)
    exact = stats.nct.sf(critical, n - 1, 2.5) + stats.nct.cdf(-critical, n - 1, 2.5)
    assert paired_t_power(2.5, n) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_detectable_effect_is_detected_in_eighty_percent_of_simulated_runs(n):
    generator = np.random.default_rng(n)
    effect = minimal_detectable_effect(0.7, n)
    samples = generator.normal(effect, 0.7, (40_000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue <= 0.05
    assert found.mean() == pytest.approx(0.80, abs=0.01)
