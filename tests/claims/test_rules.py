import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lightning_plugins.claims import (
    Equivalence,
    PooledSuperiority,
    Recovers,
    Superiority,
    Verdict,
)
from lightning_plugins.claims.judgement import at_look, holm_adjusted
from lightning_plugins.claims.statistics import (
    level_of_look,
    minimal_detectable_effect,
    pooled_effect,
)


def arms(**values):
    return {
        arm: {seed: {"loss": float(x)} for seed, x in enumerate(column)}
        for arm, column in values.items()
    }


def noisy(generator, n, **means):
    shared = generator.normal(0, 1, n)
    return arms(**{arm: mean + shared + generator.normal(0, 0.1, n) for arm, mean in means.items()})


A = [2.0, 2.2, 1.9, 2.1]
B = [1.0, 1.1, 1.0, 1.1]


def test_superiority_is_the_paired_t_test_of_the_improvement():
    judged = Superiority("loss", "sam", "sgd", "lower").judge(arms(sgd=A, sam=B))
    expected = stats.ttest_rel(A, B)
    assert judged.verdict == Verdict.SUPPORTED
    assert judged.p == pytest.approx(expected.pvalue)
    assert judged.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    spread = np.std(np.subtract(A, B), ddof=1)
    assert judged.minimal_detectable_effect == pytest.approx(minimal_detectable_effect(spread, 4))
    assert (judged.n, judged.dropped) == (4, 0)


@pytest.mark.parametrize(
    ("direction", "verdict"), [("lower", Verdict.SUPPORTED), ("higher", Verdict.REFUTED)]
)
def test_the_opposite_direction_turns_support_into_refutation(direction, verdict):
    judged = Superiority("loss", "sam", "sgd", direction).judge(arms(sgd=A, sam=B))
    assert judged.verdict == verdict


def test_no_effect_is_undecided_without_a_smallest_effect():
    values = arms(sgd=[1.0, 1.1, 0.9, 1.0], sam=[1.01, 1.08, 0.91, 1.0])
    rule = Superiority("loss", "sam", "sgd", "lower")
    assert rule.judge(values).verdict == Verdict.UNDECIDED
    assert replace(rule, smallest_effect=0.5).judge(values).verdict == Verdict.REFUTED


def test_an_equally_good_rival_makes_superiority_undecided_and_is_named():
    values = arms(sgd=A, sam=B, ema=[1.05, 1.05, 1.02, 1.08])
    judged = Superiority("loss", "sam", "sgd", "lower", rivals=("ema",)).judge(values)
    assert judged.verdict == Verdict.UNDECIDED
    assert "ema - sam" in judged.note
    assert judged.p_for == pytest.approx(
        stats.ttest_rel([1.05, 1.05, 1.02, 1.08], B).pvalue if np.mean(B) < 1.05 else 1.0
    )


def test_a_better_rival_refutes_superiority():
    values = arms(sgd=A, sam=B, ema=[0.5, 0.61, 0.52, 0.6])
    judged = Superiority("loss", "sam", "sgd", "lower", rivals=("ema",)).judge(values)
    assert judged.verdict == Verdict.REFUTED


def test_equivalence_needs_the_ninety_percent_interval_inside_the_margin():
    values = arms(sam=[1.02, 1.11, 1.0, 1.09], tail=B)
    rule = Equivalence("loss", "tail", "sam", margin=0.05)
    judged = rule.judge(values)
    assert judged.verdict == Verdict.SUPPORTED
    assert judged.confidence == 0.90
    assert -0.05 < judged.interval[0] < judged.interval[1] < 0.05
    assert replace(rule, margin=0.011).judge(values).verdict == Verdict.UNDECIDED


def test_equivalence_is_refuted_if_the_difference_exceeds_the_margin():
    rule = Equivalence("loss", "sgd", "sam", margin=0.2)
    assert rule.judge(arms(sgd=A, sam=B)).verdict == Verdict.REFUTED


def test_a_relative_margin_agrees_with_fiellers_interval_of_the_ratio():
    values = arms(sam=[1.02, 1.11, 1.0, 1.09], tail=B)
    for margin in np.linspace(0.005, 0.06, 12):
        judged = Equivalence("loss", "tail", "sam", float(margin), relative=True).judge(values)
        low, high = judged.ratio_interval
        inside = -margin <= low and high <= margin
        assert (judged.verdict == Verdict.SUPPORTED) == inside


def test_a_relative_margin_of_a_negative_metric_is_undecided():
    values = arms(sam=[-1.0, -1.1], tail=[-1.0, -1.1])
    judged = Equivalence("loss", "tail", "sam", 0.1, relative=True).judge(values)
    assert judged.verdict == Verdict.UNDECIDED
    assert "positive" in judged.note


def test_recovers_judges_the_linear_contrast_and_reports_the_share():
    tail = [1.2, 1.35, 1.15, 1.3]
    judged = Recovers("loss", "tail", ("sgd", "sam"), 0.7).judge(arms(sgd=A, sam=B, tail=tail))
    a, b, t = map(np.asarray, (A, B, tail))
    contrast = (a - t) - 0.7 * (a - b)
    expected = stats.ttest_1samp(contrast, 0)
    assert judged.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert judged.ratio == pytest.approx((a - t).mean() / (a - b).mean())
    assert judged.verdict == Verdict.SUPPORTED
    low, high = judged.ratio_interval
    assert 0.7 < low < judged.ratio < high


def test_recovers_is_refuted_if_the_share_is_smaller():
    values = arms(sgd=A, sam=B, tail=[1.8, 1.99, 1.71, 1.92])
    rule = Recovers("loss", "tail", ("sgd", "sam"), 0.7)
    assert rule.judge(values).verdict == Verdict.REFUTED


def test_recovers_judges_an_increase_with_direction_higher():
    values = arms(low=B, full=A, tail=[1.9, 2.1, 1.8, 2.0])
    rule = Recovers("loss", "tail", ("low", "full"), 0.5, direction="higher")
    assert rule.judge(values).verdict == Verdict.SUPPORTED
    assert replace(rule, direction="lower").judge(values).verdict == Verdict.UNDECIDED


def test_without_a_change_there_is_nothing_to_recover():
    values = arms(sgd=[1.0, 1.1, 0.9], sam=[1.1, 0.9, 1.0], tail=[0.1, 0.2, 0.0])
    judged = Recovers("loss", "tail", ("sgd", "sam"), 0.7).judge(values)
    assert judged.verdict == Verdict.UNDECIDED
    assert "nothing to recover" in judged.note


@pytest.mark.parametrize(
    "rule",
    [
        Superiority("loss", "sam", "sgd", "lower"),
        Equivalence("loss", "sam", "sgd", 5.0),
        Recovers("loss", "tail", ("sgd", "sam"), 0.1),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_missing_and_nan_seeds_are_dropped_and_counted(rule):
    values = arms(sgd=A, sam=B, tail=B)
    clean = rule.judge({arm: {s: values[arm][s] for s in (0, 1)} for arm in values})
    values["sam"][2] = {"loss": math.nan}
    del values["sgd"][3]
    judged = rule.judge(values)
    assert (judged.n, judged.dropped) == (2, 2)
    assert judged.estimate == pytest.approx(clean.estimate)
    values["sgd"][1] = {}
    judged = rule.judge(values)
    assert (judged.n, judged.dropped) == (1, 3)
    assert judged.verdict == Verdict.UNDECIDED
    assert "1 usable pair" in judged.note
    assert rule.judge({}).verdict == Verdict.UNDECIDED


def test_a_best_value_at_the_edge_of_its_grid_makes_a_claim_undecided():
    values = arms(sgd=A, sam=B)
    values["sgd"][0]["on_grid_edge"] = 1.0
    judged = Superiority("loss", "sam", "sgd", "lower").judge(values)
    assert judged.verdict == Verdict.UNDECIDED
    assert "grid" in judged.note


SETTINGS = tuple((f"new {place}", f"old {place}") for place in range(5))
POOLED = PooledSuperiority("loss", SETTINGS, "lower", smallest_effect=0.1)


def of_settings(generator, effect, between=0.0, n=8):
    means = {}
    for new, old in SETTINGS:
        means |= {old: 1.0, new: 1.0 - effect - between * generator.normal()}
    return noisy(generator, n, **means)


def test_a_pooled_effect_is_the_weighted_mean_with_the_interval_of_hartung_and_knapp():
    means, errors = [0.3, 0.1, 0.25, -0.02], [0.1, 0.05, 0.12, 0.08]
    found = pooled_effect(means, errors)
    weights = 1 / (np.square(errors) + found.between**2)
    assert found.estimate == pytest.approx(np.average(means, weights=weights))
    # The variance between settings makes the weighted squares equal their expectation.
    fixed = 1 / np.square(errors)
    q = (fixed * (np.array(means) - np.average(means, weights=fixed)) ** 2).sum()
    assert found.between**2 == pytest.approx(
        (q - 3) / (fixed.sum() - (fixed**2).sum() / fixed.sum())
    )
    squares = (weights * (np.array(means) - found.estimate) ** 2).sum() / 3
    assert found.standard_error == pytest.approx(math.sqrt(max(1, squares) / weights.sum()))
    assert pooled_effect([0.1, 0.1], [0.1, 0.1]).between == 0


def test_pooled_claims_are_supported_refuted_and_rarely_wrong():
    generator = np.random.default_rng(20261201)
    verdicts = {
        case: [POOLED.judge(of_settings(generator, *case)).verdict for _ in range(200)]
        for case in ((0.0, 0.0), (0.0, 0.04), (0.2, 0.04))
    }
    for case in ((0.0, 0.0), (0.0, 0.04)):  # A/A, also if settings differ
        assert verdicts[case].count(Verdict.SUPPORTED) <= 10
    assert verdicts[0.0, 0.0].count(Verdict.REFUTED) >= 160
    assert verdicts[0.2, 0.04].count(Verdict.SUPPORTED) >= 180


def test_one_setting_with_a_large_effect_does_not_decide_a_pooled_claim():
    generator = np.random.default_rng(3)
    values = of_settings(generator, 0.0)
    values["new 0"] = {seed: {"loss": one["loss"] - 2} for seed, one in values["new 0"].items()}
    assert POOLED.judge(values).verdict == Verdict.UNDECIDED
    values["new 1"] = {}
    assert "0 usable pairs" in POOLED.judge(values).note


def test_holm_within_a_paper_can_make_a_supported_claim_undecided():
    rule = Superiority("loss", "sam", "sgd", "lower")
    judged = rule.judge(arms(sgd=[1.0, 1.2, 1.1, 1.3], sam=[0.88, 0.95, 1.02, 0.99]))
    assert judged.verdict == Verdict.SUPPORTED
    assert 0.025 < judged.p <= 0.05
    unmeasured = rule.judge({})
    adjusted, blocked = holm_adjusted([judged, unmeasured])
    assert adjusted.p == pytest.approx(2 * judged.p)
    assert adjusted.decided().verdict == Verdict.UNDECIDED
    assert math.isnan(blocked.p)


def test_a_run_that_may_stop_at_every_planned_look_is_rarely_wrong():
    generator = np.random.default_rng(20261201)
    rule, looks = Superiority("loss", "new", "old", "lower"), (6, 12, 18, 24)
    wrong = {(): 0, looks: 0}
    for _ in range(400):
        new = generator.normal(0.0, 1.0, 24)
        judged = [rule.judge(arms(old=[0.0] * n, new=list(new[:n]))) for n in looks]
        for planned in wrong:
            verdicts = [at_look(one, planned).decided().verdict for one in judged]
            wrong[planned] += any(one != Verdict.UNDECIDED for one in verdicts)
    assert wrong[looks] <= 20 < 35 < wrong[()]


def test_the_levels_of_the_looks_are_those_of_lan_and_demets_and_add_up():
    levels = [level_of_look((5, 10, 15, 20), n) for n in (5, 10, 15, 20)]
    assert np.cumsum(levels) == pytest.approx([0.000089, 0.005575, 0.023626, 0.05], rel=0.01)
    judged = Superiority("loss", "sam", "sgd", "lower").judge(arms(sgd=[1.0] * 3, sam=[0.0] * 3))
    assert at_look(judged, ()) is judged
    assert "look 1 of 2" in at_look(judged, (3, 6)).note
    elsewhere = at_look(judged, (4, 6)).decided()
    assert elsewhere.verdict == Verdict.UNDECIDED
    assert "3 seeds; looks are planned at 4, 6" in elsewhere.note


def test_at_most_five_percent_of_comparisons_without_effect_are_supported():
    generator = np.random.default_rng(20261123)
    rules = {
        "superiority": Superiority("loss", "c", "a", "lower"),
        "recovers": Recovers("loss", "c", ("a", "b"), 0.5),
        "equivalence at its margin": Equivalence("loss", "shifted", "a", 0.2),
    }
    supported = dict.fromkeys(rules, 0)
    for _ in range(200):
        values = noisy(generator, 5, a=1.0, b=1.0, c=1.0, shifted=1.2)
        for name, rule in rules.items():
            supported[name] += rule.judge(values).verdict == Verdict.SUPPORTED
    assert all(count <= 10 for count in supported.values()), supported


def test_a_planted_effect_of_twice_the_detectable_size_is_found():
    generator = np.random.default_rng(1)
    effect = 2 * minimal_detectable_effect(0.1 * math.sqrt(2), 5)
    rule = Superiority("loss", "better", "a", "lower")
    found = sum(
        rule.judge(noisy(generator, 5, a=1.0, better=1.0 - effect)).verdict == Verdict.SUPPORTED
        for _ in range(200)
    )
    assert found >= 180


def test_the_hash_of_a_rule_depends_on_every_field_and_on_the_claims_name():
    rule = Superiority("loss", "sam", "sgd", "lower")
    same = Superiority("loss", "sam", "sgd", "lower")
    assert rule.sha256("claim") == same.sha256("claim")
    others = [
        rule.sha256("other"),
        replace(rule, metric="error").sha256("claim"),
        replace(rule, direction="higher").sha256("claim"),
        replace(rule, rivals=("ema",)).sha256("claim"),
        replace(rule, smallest_effect=0.1).sha256("claim"),
        Equivalence("loss", "sam", "sgd", 0.1).sha256("claim"),
        Equivalence("loss", "sam", "sgd", 0.1, relative=True).sha256("claim"),
    ]
    assert len({rule.sha256("claim"), *others}) == len(others) + 1


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: Superiority("loss", "a", "b", "smaller"), "direction"),
        (lambda: Superiority("loss", "a", "a", "lower"), "distinct"),
        (lambda: Superiority("loss", "a", "b", "lower", smallest_effect=-1.0), "smallest_effect"),
        (lambda: Equivalence("loss", "a", "b", 0.0), "margin"),
        (lambda: PooledSuperiority("loss", (("a", "b"),), "lower", 0.1), "pairs"),
        (lambda: Recovers("loss", "a", ("b", "c"), 1.5), "share"),
        (lambda: Recovers("loss", "a", ("b",), 0.5), "between"),
    ],
)
def test_an_invalid_rule_is_refused_at_construction(build, named):
    with pytest.raises(ValueError, match=named):
        build()
