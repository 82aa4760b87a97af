"""Agents in real gloo processes against the dense matrix product, and their handling of NaN."""

import sys

import decentralized_agents as harness
import pytest
import torch
from torch import nn

from lightning_plugins.strategies.ledger import CommLedger, ring_all_reduce_bytes

AGENTS, ROUNDS = 4, 20


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    names = list(harness.TOPOLOGIES)
    folder = tmp_path_factory.mktemp("agents")
    return harness.run_agents(harness.rounds_of_every_topology, AGENTS, folder, names, ROUNDS)


def dense(topology, size):
    """Compute the same rounds as matrix products in double precision."""
    start = nn.utils.parameters_to_vector(harness.network().parameters()).detach().double()
    values = start.repeat(AGENTS, 1)
    frozen = slice(size - 3, size)  # the last bias is frozen and not mixed
    for step in range(ROUNDS):
        values += torch.stack([harness.noise(k, step, (size,)) for k in range(AGENTS)])
        kept = values[:, frozen].clone()
        values = topology.plan(5, step, range(AGENTS)).matrix(AGENTS) @ values
        values[:, frozen] = kept
    return values


@pytest.mark.parametrize("name", harness.TOPOLOGIES)
def test_four_processes_equal_the_dense_matrix_product(ran, name):
    ends = torch.stack([agent["ends"][name] for agent in ran]).double()
    expected = dense(harness.TOPOLOGIES[name], ends.shape[1])
    torch.testing.assert_close(ends, expected, rtol=0, atol=1e-6)


def test_the_ledger_records_the_bytes_of_the_plans(ran):
    ledger = CommLedger.merged(agent["ledger"] for agent in ran)
    # Trainable parameters and two buffers of batch normalization.
    mixed_bytes = 4 * (6 * 5 + 5 + 5 + 5 + 5 * 3 + 2 * 5)
    edges, averages = 0, 0
    for topology in harness.TOPOLOGIES.values():
        for step in range(ROUNDS):
            plan = topology.plan(5, step, range(AGENTS))
            if plan.is_average:
                averages += 1
            else:
                edges += sum(len(plan.sources(agent)) for agent in range(AGENTS))
    expected = edges + averages * AGENTS * ring_all_reduce_bytes(1, AGENTS)
    assert ledger.total("gossip").bytes_sent == pytest.approx(expected * mixed_bytes)


def test_nan_weights_are_not_committed_and_the_error_names_their_sender(tmp_path):
    results = harness.run_agents(harness.a_round_with_nan_weights, 4, tmp_path)
    for neighbour in (0, 2):  # the neighbours of agent 3 on a ring of four
        assert results[neighbour]["unchanged"]
        assert "weights of agent 3 are not finite" in results[neighbour]["error"]
    assert not results[1]["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("topology", ["matching", "merge"])
def test_a_round_takes_two_copies_of_the_weights_in_memory(topology, tmp_path):
    peaks = harness.run_agents(harness.peak_memory, 2, tmp_path, topology)
    assert all(1.9 < peak < 2.5 for peak in peaks), peaks
