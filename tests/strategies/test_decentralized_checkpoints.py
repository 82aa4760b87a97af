"""Checkpoints of four agents: the merged model, and each agent's state for exact resume."""

import decentralized_trainers as harness
import pytest
import torch
from decentralized_trainers import Classifier, KillAll
from lightning.pytorch import Callback

from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete, RandomPull

AGENTS = 4
GOSSIP = Communication(RandomPull(1), Schedule(every_n_steps=2, rate=0.5))
OUTER = Communication(Complete(), Schedule(every_n_steps=3), outer=OuterNesterov())
ADAPTIVE = Communication(RandomPull(1), Schedule("adaptive", threshold=1e-3))


def case(communication, **arguments):
    saves = {"save_last": True, "every_n_train_steps": 4}
    # Five epochs of six batches.
    return {
        "communication": communication,
        "checkpoint": saves,
        "trainer": {"max_epochs": 5},
        **arguments,
    }


COMMUNICATIONS = {"gossip": GOSSIP, "outer": OUTER, "adaptive": ADAPTIVE}
COMMUNICATIONS |= {"overlap, dealt loader": GOSSIP}
ARGUMENTS = {
    "overlap, dealt loader": {
        "strategy": {"overlap": True, "wire": "int8"},
        "module": {"data": "plain"},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def killed(folder):
    """Runs of each communication, killed at step 18 of 30; the last checkpoint is of step 16."""
    started = {
        name: harness.start_trainers(
            AGENTS,
            folder / name,
            {"run": case(communication, callbacks=[KillAll(18)], **ARGUMENTS.get(name, {}))},
        )
        for name, communication in COMMUNICATIONS.items()
    }
    for name, agents in started.items():
        assert harness.results_of(agents, folder / name, 90) == [None] * AGENTS
    return folder


@pytest.fixture(scope="module")
def ran(folder, killed):
    """Uninterrupted and resumed runs, one after the other in one set of processes."""
    cases = {}
    for name, communication in COMMUNICATIONS.items():
        last = killed / name / "run" / "last.ckpt"
        arguments = ARGUMENTS.get(name, {})
        cases[f"{name} uninterrupted"] = case(communication, **arguments)
        cases[f"{name} resumed"] = case(communication, ckpt_path=str(last), **arguments)
    lost = killed / "lost"
    lost.mkdir()
    copy_of_checkpoint(killed / "gossip" / "run" / "last.ckpt", lost / "last.ckpt")
    next((lost / "last.ckpt.agents").glob("*.agent2.pt")).unlink()
    cases["lost"] = case(GOSSIP, ckpt_path=str(lost / "last.ckpt"))
    cases["interrupted"] = case(
        GOSSIP, callbacks=[RaiseAt(10)], may_fail=True, checkpoint={"save_on_exception": True}
    )
    cases["local"] = case(GOSSIP, strategy={"save_merged": False})
    results = harness.run_trainers(AGENTS, folder / "all", cases)
    assert None not in results
    return lambda name: [result[name] for result in results]


def copy_of_checkpoint(source, target):
    target.write_bytes(source.read_bytes())
    agents = target.with_name(f"{target.name}.agents")
    agents.mkdir()
    for path in source.with_name(f"{source.name}.agents").iterdir():
        (agents / path.name).write_bytes(path.read_bytes())


class RaiseAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("raised by a test")


@pytest.mark.scale(plugin="DecentralizedStrategy", strategy="decentralized")
@pytest.mark.scale(plugin="ExactResume", strategy="decentralized")
@pytest.mark.parametrize("name", COMMUNICATIONS)
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(ran, name):
    resumed, uninterrupted = ran(f"{name} resumed"), ran(f"{name} uninterrupted")
    for one, other in zip(resumed, uninterrupted, strict=True):
        assert one["global_step"] == other["global_step"] == 30
        for part in ("weights", "momentum"):
            assert torch.equal(one[part], other[part])
        assert bytes_by_kind(one)["gossip"] == bytes_by_kind(other)["gossip"] > 0


def bytes_by_kind(result):
    return {kind: sent for _, kind, sent, *_ in result["ledger"]["entries"]}


def test_a_checkpoint_holds_the_mean_of_its_agents_and_loads_normally(killed):
    last = killed / "gossip" / "run" / "last.ckpt"
    files = sorted((killed / "gossip" / "run" / "last.ckpt.agents").glob("*.pt"))
    assert len(files) == AGENTS
    agents = [torch.load(path, weights_only=True)["state_dict"] for path in files]
    merged = Classifier.load_from_checkpoint(last, map_location="cpu").state_dict()
    for name, value in merged.items():
        if value.is_floating_point():
            mean = torch.stack([agent[name] for agent in agents]).mean(0)
            torch.testing.assert_close(value, mean, rtol=0, atol=1e-6)
    assert not torch.equal(agents[0]["network.0.weight"], agents[1]["network.0.weight"])


def test_agents_files_are_removed_with_their_checkpoint(ran, folder):
    run = folder / "all" / "gossip uninterrupted"
    checkpoints = {path.name for path in run.glob("*.ckpt")}
    assert len(checkpoints) == 2  # the best one and the last one; three others were replaced
    assert {path.name for path in run.glob("*.agents")} == {f"{c}.agents" for c in checkpoints}
    for path in run.glob("*.agents"):
        assert len(list(path.iterdir())) == AGENTS


def test_a_missing_agents_file_starts_all_from_the_merged_model_with_a_warning(ran, killed):
    starts = [result["watched"]["start"] for result in ran("lost")]
    assert all(torch.equal(start, starts[0]) for start in starts)
    checkpoint = torch.load(killed / "gossip" / "run" / "last.ckpt", weights_only=True)
    merged = Classifier()
    merged.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(starts[0], harness.flat(merged))
    assert any("an agent's file next to it is missing" in w for w in ran("lost")[0]["warnings"])


def test_a_different_number_of_agents_starts_from_the_merged_model(killed, tmp_path):
    last = str(killed / "gossip" / "run" / "last.ckpt")
    results = harness.run_trainers(2, tmp_path, {"two": case(GOSSIP, ckpt_path=last)})
    starts = [result["two"]["watched"]["start"] for result in results]
    assert torch.equal(starts[0], starts[1])
    assert any("was saved by 4 agents and there are 2" in w for w in results[0]["two"]["warnings"])


def test_an_exception_saves_weights_marked_as_local_without_collectives(ran, folder):
    assert all("raised by a test" in result["error"] for result in ran("interrupted"))
    (path,) = (folder / "all" / "interrupted").glob("*step=10.ckpt")
    label = torch.load(path, weights_only=True)["decentralized"]
    assert (label["weights"], label["interrupted"]) == ("local", True)


def test_unmerged_checkpoints_hold_the_first_agents_weights_marked_as_local(ran, folder):
    last = torch.load(folder / "all" / "local" / "last.ckpt", weights_only=True)
    assert last["decentralized"]["weights"] == "local"
    (first,) = (folder / "all" / "local" / "last.ckpt.agents").glob("*.agent0.pt")
    own = torch.load(first, weights_only=True)["state_dict"]
    assert torch.equal(last["state_dict"]["network.0.weight"], own["network.0.weight"])


def test_a_checkpoint_url_is_refused():
    from lightning_plugins.strategies.agent_checkpoints import AgentCheckpoints

    with pytest.raises(ValueError, match="require a file system that all nodes share"):
        AgentCheckpoints("s3://bucket/last.ckpt")
