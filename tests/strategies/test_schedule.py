"""The schedule of gossip."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.strategies.schedule import Schedule


def rounds_of(schedule, steps):
    rounds = steps // schedule.every_n_steps
    return [r for r in range(rounds) if schedule.gossips(r, steps)]


@given(rate=st.floats(0, 1), rounds=st.integers(1, 400))
def test_a_constant_rate_selects_that_share_of_rounds(rate, rounds):
    assert len(rounds_of(Schedule(rate=rate), rounds)) == math.floor(rate * rounds + 1e-9)


@given(rate=st.floats(0, 1), rounds=st.integers(1, 200))
def test_a_run_without_an_end_gossips_in_the_same_rounds_as_one_with_an_end(rate, rounds):
    schedule = Schedule(rate=round(rate, 3))
    endless = [r for r in range(rounds) if schedule.gossips(r, math.inf)]
    assert endless == rounds_of(schedule, rounds)


shapes = st.one_of(
    st.builds(Schedule, rate=st.just(1.0)),
    st.builds(
        Schedule, shape=st.just("linear"), rate=st.floats(0.1, 1), end_rate=st.floats(0.1, 1)
    ),
    st.builds(
        Schedule, shape=st.just("cosine"), rate=st.floats(0.1, 1), end_rate=st.floats(0.1, 1)
    ),
)


@settings(deadline=None)
@given(shape=shapes, rounds=st.integers(1, 300), data=st.data())
def test_the_number_of_rounds_with_gossip_equals_the_budget(shape, rounds, data):
    budget = data.draw(st.integers(0, rounds))
    schedule = Schedule(**{**vars(shape), "budget": budget})
    schedule.check(rounds)
    assert len(rounds_of(schedule, rounds)) == budget


@given(
    rounds=st.integers(20, 500),
    starts=st.lists(st.floats(0, 0.9), min_size=2, max_size=2),
)
def test_the_cost_of_a_window_does_not_depend_on_its_start(rounds, starts):
    counts = set()
    for start in starts:
        schedule = Schedule(shape="window", start=start, width=0.1)
        counts.add(len(rounds_of(schedule, rounds)))
    assert counts == {round(0.1 * rounds)}


def test_an_early_window_adds_no_dense_round_at_the_end():
    schedule = Schedule(shape="window", start=0.1, width=0.05)
    assert rounds_of(schedule, 300) == list(range(30, 45))
    assert [r for r in range(300) if schedule.in_window(r, 300)] == list(range(30, 45))


def test_end_rate_applies_outside_the_window():
    schedule = Schedule(shape="window", start=0.5, width=0.2, end_rate=0.25)
    chosen = rounds_of(schedule, 100)
    assert [r for r in chosen if 50 <= r < 70] == list(range(50, 70))
    assert len([r for r in chosen if r < 50]) == 12
    assert len(chosen) == 40


def test_a_linear_schedule_gossips_more_where_its_rate_is_higher():
    chosen = rounds_of(Schedule(shape="linear", rate=0, end_rate=1), 1000)
    assert len(chosen) == pytest.approx(500, abs=1)
    assert len([r for r in chosen if r < 500]) == pytest.approx(125, abs=2)


def test_a_cosine_schedule_gossips_in_half_of_the_rounds():
    chosen = rounds_of(Schedule(shape="cosine", rate=1, end_rate=0), 1001)
    assert len(chosen) == pytest.approx(500, abs=1)
    assert len([r for r in chosen if r < 100]) >= 99


def test_a_round_follows_every_n_steps():
    schedule = Schedule(every_n_steps=20)
    followed = {steps: schedule.round_after(steps) for steps in range(61)}
    assert {s: r for s, r in followed.items() if r is not None} == {20: 0, 40: 1, 60: 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "square"}, "shape='square': expected one of constant, linear"),
        ({"every_n_steps": 0}, "every_n_steps=0: expected at least 1"),
        ({"rate": 1.2}, r"rate=1.2: expected a share in \[0, 1\]"),
        ({"start": 0.5}, "start=0.5, width=None: shape='constant' uses neither"),
        ({"shape": "window"}, "requires a start in"),
        (
            {"shape": "window", "start": 0.9, "width": 0.2},
            "the window ends at 1.1 of the run",
        ),
        ({"shape": "adaptive"}, "threshold=None: shape='adaptive' requires it"),
        ({"shape": "adaptive", "threshold": -1}, "threshold=-1: expected a finite number above 0"),
        ({"threshold": 0.1}, "threshold=0.1: shape='adaptive' requires it, no other"),
        ({"budget": -1}, "budget=-1: expected 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)


@pytest.mark.parametrize(
    ("schedule", "steps", "message"),
    [
        (Schedule(shape="linear"), math.inf, "the run has no known end"),
        (Schedule(budget=3), math.inf, "the run has no known end"),
        (Schedule(budget=11), 10, "budget=11: the schedule allows gossip in 10 of the run's 10"),
        (
            Schedule(shape="window", start=0.5, width=0.1, budget=2),
            10,
            "budget=2: the schedule allows gossip in 1 of the run's 10 rounds",
        ),
        (Schedule(shape="window", start=0.5, width=0.01), 10, "the window contains no round"),
    ],
)
def test_runs_that_do_not_fit_the_schedule_are_refused(schedule, steps, message):
    with pytest.raises(ValueError, match=message):
        schedule.check(steps)
