"""Agents of two processes each, with DDP and with FSDP2 inside."""

import decentralized_trainers as harness
import pytest
import torch
from decentralized_trainers import Classifier, KillAll

from lightning_plugins.datamodules import DirichletPartition
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import RandomMatching

PAIRS = Communication(RandomMatching(), Schedule(every_n_steps=2))
ADAPTIVE = Communication(RandomMatching(), Schedule("adaptive", threshold=1e-3))
PARTITION = DirichletPartition(0.1, 24, seed=3)
INSIDE = ("ddp", "fsdp")


def case(inside=None, module=None, strategy=None, **arguments):
    own = {} if inside is None else {"processes_per_agent": 2, "inside": inside}
    options = {"data": "of four", "plain": True, "sharded": inside == "fsdp"}
    return {
        "communication": PAIRS,
        "module": {**options, **(module or {})},
        "strategy": {"data": "user", **own, **(strategy or {})},
        **arguments,
    }


def resumable(inside, **arguments):
    saves = {"save_last": True, "every_n_train_steps": 4}
    module = {"data": None, "plain": inside == "fsdp"}
    strategy = {"data": "iid", "overlap": inside == "ddp", "wire": "int8"}
    return case(inside, module, strategy, checkpoint=saves, **arguments)


CASES = {inside: case(inside) for inside in INSIDE} | {
    "accumulated": case("ddp", trainer={"accumulate_grad_batches": 3}),
    "manual": case("ddp", {"manual": True}),
    "partition": case("ddp", {"data": "plain"}, {"data": PARTITION}),
    "dealt": case("ddp", {"data": "plain"}, {"data": "iid"}),
    "adaptive": case("fsdp", communication=ADAPTIVE),
    # A validation would copy the buffers of an agent's first process to its others.
    "buffers": case("ddp", {"plain": False}, trainer={"limit_val_batches": 0}),
    "uneven": case("ddp", {"data": None, "batches": [4, 3, 4, 4]}, may_fail=True),
    "not sharded": case("fsdp", {"sharded": False}, may_fail=True),
    "three of four": case("ddp", strategy={"processes_per_agent": 3}, may_fail=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("groups")


@pytest.fixture(scope="module")
def ran(folder):
    killed = {inside: {"run": resumable(inside, callbacks=[KillAll(6)])} for inside in INSIDE}
    started = {i: harness.start_trainers(4, folder / i, cases) for i, cases in killed.items()}
    for inside, agents in started.items():
        assert harness.results_of(agents, folder / inside, 60) == [None] * 4
    cases = dict(CASES)
    for inside in INSIDE:
        last = str(folder / inside / "run" / "last.ckpt")
        cases[f"{inside} uninterrupted"] = resumable(inside)
        cases[f"{inside} resumed"] = resumable(inside, ckpt_path=last)
    results = harness.run_trainers(4, folder / "all", cases)
    assert None not in results
    return lambda name: [result[name] for result in results]


@pytest.fixture(scope="module")
def of_one_process(folder):
    cases = {
        "plain": case(),
        "adaptive": case(communication=ADAPTIVE),
        "accumulated": case(trainer={"accumulate_grad_batches": 3}),
        "manual": case(module={"manual": True}),
    }
    results = harness.run_trainers(2, folder / "one", cases)
    assert None not in results
    return lambda name: [result[name] for result in results]


@pytest.mark.parametrize(
    ("several", "one"),
    [("ddp", "plain"), ("fsdp", "plain"), *((x, x) for x in ("accumulated", "manual", "adaptive"))],
)
def test_agents_of_two_processes_equal_agents_of_one_that_see_both_batches(
    ran, of_one_process, several, one
):
    expected = [agent for agent in of_one_process(one) for _ in range(2)]
    for process, agent in zip(ran(several), expected, strict=True):
        assert process["global_step"] == agent["global_step"] > 3
        assert process["metrics"]["val/loss"] == pytest.approx(agent["metrics"]["val/loss"])
        assert rounds_of(process) == rounds_of(agent)
        assert process["metrics"]["val/accuracy"] == agent["metrics"]["val/accuracy"]
        for own, other in zip(
            process["watched"]["batches"], agent["watched"]["batches"], strict=True
        ):
            torch.testing.assert_close(own, other, rtol=0, atol=1e-6)
    # Before the merge the agents differ.
    first, _, second, _ = (process["watched"]["batches"][-2] for process in ran(several))
    assert several == "adaptive" or not torch.equal(first, second)


def rounds_of(result):
    return [entry[4] for entry in result["ledger"]["entries"] if entry[1] == "gossip"]


@pytest.mark.parametrize("inside", INSIDE)
def test_a_killed_run_of_several_processes_resumes_bit_for_bit(ran, inside):
    for one, other in zip(ran(f"{inside} resumed"), ran(f"{inside} uninterrupted"), strict=True):
        assert one["global_step"] == other["global_step"] == 12
        assert torch.equal(one["weights"], other["weights"])
        assert torch.equal(one["momentum"], other["momentum"])


@pytest.mark.parametrize("inside", INSIDE)
def test_the_checkpoint_is_the_merged_model_and_loads_without_processes(ran, folder, inside):
    last = folder / "all" / f"{inside} uninterrupted" / "last.ckpt"
    label = torch.load(last, weights_only=True)["decentralized"]
    assert (label["agents"], label["processes_per_agent"]) == ([0, 1], 2)
    merged = harness.flat(
        Classifier.load_from_checkpoint(last, sharded=False, plain=inside == "fsdp")
    )
    assert torch.equal(merged[:56], ran(f"{inside} uninterrupted")[0]["weights"][:56])


def test_samples_are_dealt_to_all_processes_and_a_partition_within_its_agent(ran):
    features, labels = harness.samples().tensors
    everything = set(features[:, 0].tolist())
    assert set.union(*(set(p["seen"]) for p in ran("dealt"))) == everything
    seen = [process["seen"][:12] for process in ran("partition")]
    for agent in (0, 1):
        drawn = features[PARTITION.indices(labels, agent, 2, 0)][:, 0].tolist()
        assert sorted(seen[2 * agent] + seen[2 * agent + 1]) == sorted(drawn)


def test_all_processes_end_with_the_same_running_statistics(ran):
    ends = [process["weights"] for process in ran("buffers")]
    assert all(torch.equal(end, ends[0]) for end in ends)


def test_every_process_sends_its_own_part(ran):
    sent = {
        inside: CommLedger.merged(p["ledger"] for p in ran(inside)).of(0, "gossip").bytes_sent
        for inside in INSIDE
    }
    assert sent["ddp"] == 2 * sent["fsdp"] > 0


def test_processes_that_do_not_fit_are_refused(ran):
    for process in ran("not sharded"):
        assert "configure_model shards no parameter" in process["error"]
    for process in ran("uneven"):
        assert "agent 0, process 0 has 4, agent 0, process 1 has 3" in process["error"]
    for process in ran("three of four"):
        assert "4 processes (devices x num_nodes) cannot be divided" in process["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"processes_per_agent": 0}, "processes_per_agent=0: expected at least 1"),
        ({"inside": "tp"}, "inside='tp': expected 'ddp' or 'fsdp'"),
    ],
)
def test_bad_arguments_of_processes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        harness.DecentralizedStrategy(**arguments)
