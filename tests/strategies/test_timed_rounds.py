"""Meetings by time: the mean in proportion to samples, two agents of unequal speeds, refusals."""

import decentralized_meetings as harness
import pytest
import torch
from decentralized_agents import run_agents
from decentralized_models import DATA, Small
from decentralized_trainers import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import CommunicationSchedule
from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.stacked_agents import StackedAgents
from lightning_plugins.strategies.timed_rounds import ByMass, mixed_masses
from lightning_plugins.strategies.topologies import (
    Complete,
    OnePeerExponential,
    RandomMatching,
    RandomPull,
    Ring,
)


class Validated(Small):
    def validation_step(self, batch, batch_idx):
        pass

    def val_dataloader(self):
        return DataLoader(DATA, 64)


@settings(deadline=None, max_examples=50)
@given(
    topology=st.sampled_from([RandomMatching(), Ring(), Complete(), OnePeerExponential()]),
    agents=st.integers(2, 9),
    data=st.data(),
)
def test_meetings_keep_the_mean_in_proportion_to_the_samples(topology, agents, data):
    """Between the meetings agents take unequal numbers of steps, some of them none."""
    values = torch.randn(agents, 5, dtype=torch.float64)
    masses = dict.fromkeys(range(agents), 0.0)
    for number in range(4):
        seen = data.draw(st.lists(st.integers(0, 1000), min_size=agents, max_size=agents))
        masses = {agent: masses[agent] + seen[agent] for agent in masses}
        values += torch.randn_like(values)
        total = sum(masses.values())
        before = sum(masses[agent] * values[agent] for agent in masses)
        plan = topology.plan(0, number, range(agents))
        by_mass = ByMass(topology, tuple(masses.items())).plan(0, number, range(agents))
        values = by_mass.matrix(agents) @ values
        masses = mixed_masses(plan.rows, masses)
        assert sum(masses.values()) == pytest.approx(total, rel=1e-12)
        after = sum(masses[agent] * values[agent] for agent in masses)
        torch.testing.assert_close(
            torch.as_tensor(after), torch.as_tensor(before), rtol=0, atol=1e-9 * (1 + total)
        )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    names = list(harness.timed_cases(folder))
    arguments = (free_port(), str(folder), names)
    results = run_agents(harness.run_cases, 2, folder, *arguments, timeout_seconds=120)
    assert None not in results
    return lambda case: [result[case] for result in results]


def test_an_agent_that_is_ten_times_slower_takes_fewer_steps_and_ends_with_the_others(ran):
    fast, slow = ran("by time")
    assert "error" not in fast, fast
    assert "error" not in slow, slow
    assert fast["steps"] == harness.TIMED_STEPS
    assert 0 < slow["steps"] < harness.TIMED_STEPS / 3
    assert fast["meetings"] == slow["meetings"] >= 3


def test_the_merge_is_the_mean_in_proportion_to_the_samples(ran):
    both = ran("by time")
    masses = both[0]["masses"]
    assert masses == both[1]["masses"]
    assert sum(masses) == pytest.approx(16 * sum(agent["steps"] for agent in both))
    assert masses[0] > masses[1]
    mean = sum(m * agent["before"] for m, agent in zip(masses, both, strict=True)) / sum(masses)
    assert not torch.allclose(both[0]["before"], both[1]["before"], atol=1e-4)
    for agent in both:
        torch.testing.assert_close(agent["weights"], mean, rtol=0, atol=1e-6)
        assert torch.equal(agent["saved"], agent["weights"])


def test_an_operation_that_needs_all_agents_between_meetings_is_an_error(ran):
    errors = [agent["error"] for agent in ran("by time, reduced")]
    assert all("every='0.3s': agents take their own steps" in error for error in errors), errors
    assert all("without sync_dist=True" in error for error in errors)


def test_sigterm_ends_agents_at_once_with_its_exit_code(ran):
    assert [agent["code"] for agent in ran("by time, terminated")] == [143, 143]


@pytest.mark.parametrize(
    ("options", "strategy", "message"),
    [
        ({"max_steps": -1, "max_epochs": -1}, {}, "a run without a known end"),
        ({}, {"overlap": True}, "overlap=True; set False"),
        ({}, {"wire": "int8"}, "wire='int8'; set 'weights'"),
        ({}, {"optimizer_state": "reset"}, "optimizer_state='reset'; set 'keep'"),
        ({}, {"merge_weights": "val/loss"}, "merge_weights='val/loss'"),
        ({}, {"topology": RandomPull(0.2)}, "does not preserve the mean"),
        ({}, {"timeout_seconds": 20}, "timeout_seconds=20"),
        ({"limit_val_batches": 1}, {}, "validation"),
        ({"callbacks": [Timer("00:01:00:00")]}, {}, "Timer"),
        ({"callbacks": [EarlyStopping("x")]}, {}, "EarlyStopping"),
        ({"callbacks": [ModelCheckpoint()], "enable_checkpointing": True}, {}, "ModelCheckpoint"),
        ({"min_steps": 1}, {}, "min_steps"),
    ],
)
def test_what_agents_cannot_do_between_meetings_is_refused(options, strategy, message, tmp_path):
    module = Validated()
    callbacks = [CommunicationSchedule(every="30s"), *options.get("callbacks", [])]
    usual = {"max_steps": 2, "limit_val_batches": 0, "enable_checkpointing": False}
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy=DecentralizedStrategy(**strategy),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **(usual | options | {"callbacks": callbacks}),
    )
    with pytest.raises(ValueError, match="every='30s' does not support .*" + message):
        trainer.fit(module, DataLoader(DATA, 16))


def test_simulated_agents_refuse_meetings_by_time():
    with pytest.raises(ValueError, match="every='30s': simulated agents all take the same steps"):
        StackedAgents(
            [torch.zeros(2, 3)], Communication(Ring(), Schedule(every="30s")), CommLedger()
        )


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("0.5 min", 30), ("2h", 7200)])
def test_times_between_meetings(text, seconds):
    assert Schedule(every=text).seconds == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": "30"}, "every='30': expected a number above 0 of seconds"),
        ({"every": "0s"}, "every='0s': expected a number above 0"),
        ({"every": "30s", "every_n_steps": 5}, "remove shape, every_n_steps, rate and budget"),
        ({"every": "30s", "rate": 0.5}, "remove shape, every_n_steps, rate and budget"),
    ],
)
def test_other_times_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**arguments)
