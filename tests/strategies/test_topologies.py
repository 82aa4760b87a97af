"""Properties of all topologies, for 1 to 33 agents and any seed, round and failures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.strategies.topologies import (
    Complete,
    ExplicitMatrix,
    Hierarchical,
    OnePeerExponential,
    RandomMatching,
    RandomPull,
    Ring,
    StaticExponential,
)


def lazy_line(num_agents):
    """A matrix that is neither symmetric nor doubly stochastic."""
    rows = []
    for agent in range(num_agents):
        row = [0.0] * num_agents
        row[max(agent - 1, 0)] += 0.25
        row[agent] += 0.75
        rows.append(row)
    return ExplicitMatrix(rows)


MAKERS = {
    "ring": lambda n: Ring(),
    "static exponential": lambda n: StaticExponential(),
    "one-peer exponential": lambda n: OnePeerExponential(),
    "complete": lambda n: Complete(),
    "matching": lambda n: RandomMatching(),
    "pull 0.2": lambda n: RandomPull(0.2),
    "pull 2.5": lambda n: RandomPull(2.5),
    "hierarchical": lambda n: Hierarchical(4, 3),
    "matrix": lazy_line,
}
topologies = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
numbers = st.integers(1, 33)
seeds = st.integers(0, 2**31)
rounds = st.integers(0, 1000)
quick = settings(max_examples=60, deadline=None)


def draw_remaining(data, num_agents):
    kept = data.draw(st.sets(st.integers(0, num_agents - 1), min_size=1))
    return sorted(kept)


@topologies
@quick
@given(n=numbers, seed=seeds, round_number=rounds, data=st.data())
def test_rows_are_convex_combinations_with_a_positive_diagonal(make, n, seed, round_number, data):
    matrix = make(n).plan(seed, round_number, draw_remaining(data, n)).matrix(n)
    torch.testing.assert_close(matrix.sum(1), torch.ones(n, dtype=torch.float64))
    assert bool((matrix >= 0).all())
    assert bool((matrix.diagonal() > 0).all())


@topologies
@quick
@given(n=numbers, seed=seeds, round_number=rounds, data=st.data())
def test_sends_match_receives_and_involve_only_remaining_agents(make, n, seed, round_number, data):
    remaining = draw_remaining(data, n)
    plan = make(n).plan(seed, round_number, remaining)
    sent = {(a, b) for a in remaining for b in plan.destinations(a)}
    expected = {(a, b) for b in remaining for a in plan.sources(b)}
    assert sent == expected
    assert all(a != b and a in remaining and b in remaining for a, b in sent)


@topologies
@quick
@given(n=numbers, seed=seeds, round_number=rounds, data=st.data())
def test_doubly_stochastic_topologies_preserve_the_mean_and_do_not_increase_the_spread(
    make, n, seed, round_number, data
):
    topology = make(n)
    if not topology.doubly_stochastic:
        return
    remaining = draw_remaining(data, n)
    matrix = topology.plan(seed, round_number, remaining).matrix(n)
    torch.testing.assert_close(matrix.sum(0), torch.ones(n, dtype=torch.float64))
    values = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mixed = matrix @ values
    before, after = values[remaining], mixed[remaining]
    torch.testing.assert_close(after.mean(0), before.mean(0))
    spread = [(x - x.mean(0)).norm().item() for x in (before, after)]
    assert spread[1] <= spread[0] + 1e-12
    absent = [agent for agent in range(n) if agent not in remaining]
    assert torch.equal(mixed[absent], values[absent])


@topologies
@quick
@given(n=numbers, seed=seeds, round_number=rounds)
def test_a_plan_depends_only_on_its_arguments_and_leaves_global_generators_unchanged(
    make, n, seed, round_number
):
    before = torch.get_rng_state()
    plans = [make(n).plan(seed, round_number, range(n)) for _ in range(2)]
    assert plans[0] == plans[1]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "matrix"])
@quick
@given(n=numbers, seed=seeds, round_number=rounds, data=st.data())
def test_remaining_agents_are_renumbered_in_order(name, n, seed, round_number, data):
    topology = MAKERS[name](n)
    remaining = draw_remaining(data, n)
    all_agents = topology.plan(seed, round_number, range(len(remaining)))
    renamed = {
        remaining[a]: {remaining[b]: weight for b, weight in row.items()}
        for a, row in all_agents.rows.items()
    }
    assert topology.plan(seed, round_number, remaining).rows == renamed


@topologies
@quick
@given(n=numbers, seed=seeds)
def test_agents_converge_over_many_rounds(make, n, seed):
    topology = make(n)
    if isinstance(topology, ExplicitMatrix):
        return  # a line, which has no bound on the number of rounds
    values = torch.arange(n, dtype=torch.float64)
    for round_number in range(1500):
        values = topology.plan(seed, round_number, range(n)).matrix(n) @ values
        if values.max() - values.min() < 0.2:
            break
    assert values.max() - values.min() < 0.2


@quick
@given(n=numbers, seed=seeds, round_number=rounds)
def test_a_matching_pairs_all_agents_except_at_most_one(n, seed, round_number):
    plan = RandomMatching().plan(seed, round_number, range(n))
    for agent in range(n):
        assert len(plan.sources(agent)) <= 1
        for other in plan.sources(agent):
            assert list(plan.sources(other)) == [agent]
    assert sum(not plan.sources(agent) for agent in range(n)) == n % 2


@pytest.mark.parametrize("n", range(1, 34))
def test_a_round_of_complete_is_the_mean_and_is_detected_as_an_average(n):
    plan = Complete().plan(0, 0, range(n))
    torch.testing.assert_close(
        plan.matrix(n), torch.full((n, n), 1 / n, dtype=torch.float64), rtol=0, atol=1e-15
    )
    assert plan.is_average
    assert Ring().plan(0, 0, range(n)).is_average == (n <= 3)


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_a_cycle_of_one_peer_exponential_is_the_exact_mean_for_powers_of_two(n):
    product = torch.eye(n, dtype=torch.float64)
    for round_number in range(int(math.log2(n))):
        product = OnePeerExponential().plan(0, round_number, range(n)).matrix(n) @ product
    assert torch.equal(product, torch.full((n, n), 1 / n, dtype=torch.float64))


def second_singular_value(matrix):
    return torch.linalg.svdvals(matrix - 1 / len(matrix))[0].item()


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_spectral_gaps_equal_the_published_ones(n):
    ring = 1 - second_singular_value(Ring().plan(0, 0, range(n)).matrix(n))
    assert ring == pytest.approx(2 / 3 * (1 - math.cos(2 * math.pi / n)))
    exponential = 1 - second_singular_value(StaticExponential().plan(0, 0, range(n)).matrix(n))
    assert exponential == pytest.approx(2 / (1 + math.log2(n)))


def test_the_mean_number_of_pulls_equals_peers():
    plans = [RandomPull(1.4).plan(3, round_number, range(10)) for round_number in range(300)]
    pulls = [len(plan.sources(agent)) for plan in plans for agent in range(10)]
    assert set(pulls) == {1, 2}
    assert sum(pulls) / len(pulls) == pytest.approx(1.4, abs=0.03)


def test_groups_average_with_each_other_in_every_third_round():
    topology = Hierarchical(group_size=2, between_every=3)
    assert list(topology.plan(0, 0, range(6)).sources(0)) == [1]
    assert list(topology.plan(0, 1, range(6)).sources(0)) == [1]
    assert list(topology.plan(0, 2, range(6)).sources(0)) == [2, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomPull(0), "peers=0: expected a finite number above 0"),
        (lambda: Hierarchical(1), "group_size=1: expected at least 2"),
        (lambda: Hierarchical(2, 1), "between_every=1: expected at least 2"),
        (lambda: ExplicitMatrix([[1.0, 0.0]]), r"rows of \[2\] entries"),
        (lambda: ExplicitMatrix([[0.5, 0.4], [0.5, 0.5]]), r"rows that sum to \[0.9"),
        (lambda: ExplicitMatrix([[0.0, 1.0], [0.5, 0.5]]), "a diagonal above 0"),
        (lambda: Hierarchical(8).check(4), "group_size=8: there are 4 agents"),
        (lambda: ExplicitMatrix([[1.0]]).check(4), "matrix has 1 rows, but there are 4 agents"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
