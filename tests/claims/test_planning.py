"""The planned number of seeds decides a claim both ways with the planned power."""

import dataclasses
import math
import random

import pytest

from lightning_plugins.claims import PooledSuperiority, Superiority, Verdict
from lightning_plugins.claims.judgement import holm_adjusted
from lightning_plugins.claims.planning import planned_claims
from lightning_plugins.claims.reporting import needed_text
from lightning_plugins.claims.result_store import ResultStore
from lightning_plugins.claims.runner import run_paper
from lightning_plugins.claims.statistics import pairs_for

RULE = Superiority("loss", "new", "old", "lower", smallest_effect=1.0)


def verdict(true_effect, deviation, pairs, seed):
    draw = random.Random(seed)
    values = {"old": {}, "new": {}}
    for pair in range(pairs):
        shared = draw.gauss(0, 5)
        values["old"][pair] = {"loss": shared + draw.gauss(true_effect, deviation)}
        values["new"][pair] = {"loss": shared}
    return RULE.judge(values).verdict


@pytest.mark.parametrize("deviation", [0.5, 1.5])
def test_with_the_planned_pairs_an_effect_is_shown_and_a_true_zero_is_refuted(deviation):
    pairs = pairs_for(RULE.smallest_effect, deviation)
    runs = 200
    shown = [verdict(1.0, deviation, pairs, seed) for seed in range(runs)]
    refuted = [verdict(0.0, deviation, pairs, runs + seed) for seed in range(runs)]
    twice = [verdict(2.0, deviation, pairs, 2 * runs + seed) for seed in range(runs)]
    # 90 % power; three standard errors of a share of 200 runs are 6.4 points.
    assert sum(one != Verdict.UNDECIDED for one in shown) / runs > 0.83
    assert refuted.count(Verdict.REFUTED) / runs > 0.83
    assert twice.count(Verdict.SUPPORTED) / runs > 0.9
    # A/A: both decisions are two-sided tests at 5 %, so a false "better" is at most 2.5 %.
    assert refuted.count(Verdict.SUPPORTED) / runs <= 0.05


def test_more_spread_needs_more_pairs_and_too_many_are_not_planned():
    assert pairs_for(1.0, 0.0) == 2
    assert pairs_for(1.0, 0.5) < pairs_for(1.0, 1.0) < pairs_for(1.0, 3.0)
    assert pairs_for(0.01, 10.0) is None


def test_the_plan_takes_the_spread_of_finished_cells(tmp_path, synthetic):
    paper = synthetic.paper()
    rule = Superiority("loss", "sam", "sgd", "lower", smallest_effect=0.1)
    paper = dataclasses.replace(
        paper, claims=(dataclasses.replace(paper.claims[0], rule=rule), *paper.claims[1:])
    )
    store = ResultStore(tmp_path / "cells")
    assert "no pilot" in next(planned_claims(paper, "smoke", store)).line()
    run_paper(paper, "smoke", tmp_path, jobs=1, echo=str)
    better, recovers, _ = planned_claims(paper, "smoke", store)
    assert (better.pilot_pairs, better.effect) == (4, 0.1)
    # At a third of the level, because the paper has three claims.
    assert better.pairs == pairs_for(0.1, better.deviation, significance=0.05 / 3)
    assert not math.isnan(better.hours)
    assert "seeds for 90 % power" in better.line()
    assert "smallest effect" in recovers.line()
    assert recovers.effect == pytest.approx(0.5, rel=0.2)  # half of the change
    more = run_paper(paper.with_seeds((4, 5)), "smoke", tmp_path, jobs=1, echo=str)
    assert more.reused == 0
    assert next(planned_claims(paper, "smoke", store)).pilot_pairs == 6


def test_with_the_pairs_that_a_verdict_names_a_family_is_decided():
    """Four claims of a true zero, judged together, are refuted in more than 80 % of runs."""
    draw = random.Random(7)
    pilot = RULE.judge(_pairs(draw, 6, 1.2))
    planned = [holm_adjusted([pilot] * 4)[0].pairs_needed, pairs_for(1.0, 1.2, 0.9, 0.05 / 4)]
    assert planned[1] > pairs_for(1.0, 1.2)
    refuted = 0
    for _ in range(50):
        family = holm_adjusted([RULE.judge(_pairs(draw, planned[1], 1.2)) for _ in range(4)])
        refuted += sum(one.decided().verdict == Verdict.REFUTED for one in family)
    assert refuted / 200 > 0.8
    assert planned[0] is not None


def _pairs(draw, pairs, deviation):
    old = {pair: {"loss": draw.gauss(0, deviation)} for pair in range(pairs)}
    return {"old": old, "new": {pair: {"loss": 0.0} for pair in range(pairs)}}


def test_an_undecided_claim_names_the_pairs_and_the_hours_that_would_decide_it():
    def needed(rule, spread):
        values = {
            arm: {seed: {"loss": level * sign * spread} for seed, sign in enumerate((1, -1, 2))}
            for arm, level in (("a", 0), ("b", 1), ("c", 0), ("d", -3))
        }
        return needed_text(rule.judge(values), seconds=7200.0)

    superiority = Superiority("loss", "a", "b", "lower", smallest_effect=1.0)
    pairs = pairs_for(1.0, 1.527525, 0.9, 0.05)
    assert needed(superiority, 1.0) == f"{pairs} pairs would decide ({pairs * 2 / 3:.2g} CPU hours)"
    assert needed(superiority, 100.0).startswith("more than 400 pairs would decide (more than 2.7")
    pooled = PooledSuperiority("loss", (("a", "b"), ("c", "d")), "lower", 0.1)
    assert "pairs would decide" in needed(pooled, 1.0)
    assert needed(dataclasses.replace(superiority, smallest_effect=0.0), 1.0) == ""
