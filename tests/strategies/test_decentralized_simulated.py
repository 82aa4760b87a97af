"""SimulatedDecentralizedStrategy against real processes, plain training and resumed runs."""

import warnings

import decentralized_trainers as harness
import pytest
import torch
from decentralized_trainers import Classifier
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import CommunicationSchedule, ExactResume, MergedEvaluation
from lightning_plugins.datamodules import DirichletPartition
from lightning_plugins.strategies import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.agent_dataloaders import AgentDataLoaders
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.outer_optimizer import OuterNesterov
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import (
    Complete,
    Hierarchical,
    OnePeerExponential,
    RandomMatching,
    RandomPull,
    Ring,
    StaticExponential,
)

AGENTS = 4
# Indices in the flat state of all values but num_batches_tracked.
FLOATING = [*range(88), *range(89, 116)]
# Without dropout, because each real agent has its own random stream.
MODULE = {"dropout": 0.0}
COMMUNICATIONS = {
    "ring": Communication(Ring(), Schedule(), final_merge=False),
    "static exponential": Communication(StaticExponential(), Schedule(), final_merge=False),
    "one-peer exponential": Communication(OnePeerExponential(), Schedule(), final_merge=False),
    "complete": Communication(Complete(), Schedule(every_n_steps=3), final_merge=False),
    "matching": Communication(RandomMatching(), Schedule(), final_merge=False, seed=2),
    "pull": Communication(RandomPull(1.5), Schedule(), final_merge=False, seed=2),
    "hierarchical": Communication(Hierarchical(2), Schedule(), final_merge=False),
    "rarely, merged": Communication(RandomPull(1), Schedule(every_n_steps=5)),
    "DiLoCo": Communication(Complete(), Schedule(every_n_steps=4), outer=OuterNesterov()),
    "adaptive": Communication(RandomPull(1), Schedule("adaptive", threshold=0.02)),
}
POLICIES = {
    "local buffers": {"buffers": "local"},
    "recalibrated": {"buffers": "recalibrate"},
    "averaged momentum": {"optimizer_state": "average"},
    "reset momentum": {"optimizer_state": "reset"},
    "narrow": {"wire": "bfloat16"},
}
# Four epochs of six batches: 24 steps.
CASES = {
    **{name: ({}, communication) for name, communication in COMMUNICATIONS.items()},
    **{name: (policy, COMMUNICATIONS["rarely, merged"]) for name, policy in POLICIES.items()},
    "overlapping pairs": ({"overlap": True}, COMMUNICATIONS["matching"]),
    "overlapping averages": ({"overlap": True, "wire": "int8"}, COMMUNICATIONS["complete"]),
    "overlapping, merged": (
        {"overlap": True, "wire": "bfloat16"},
        Communication(RandomMatching(), Schedule(every_n_steps=5)),
    ),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    cases = {
        name: {
            "strategy": policy,
            "communication": communication,
            "module": MODULE,
            "trainer": {"max_epochs": 4},
        }
        for name, (policy, communication) in CASES.items()
    }
    results = harness.run_trainers(AGENTS, tmp_path_factory.mktemp("real"), cases)
    assert None not in results
    return lambda name: [result[name] for result in results]


class Rows(Callback):
    """Records all agents' states at the end of training."""

    def on_train_end(self, trainer, pl_module):
        rows = trainer.strategy.rows
        self.agents = []
        for agent in range(rows.num_agents):
            rows.switch_to(agent)
            self.agents.append(harness.flat(pl_module))
        rows.switch_to(0)


def simulated(folder, communication, policy=None, callbacks=(), ckpt_path=None, **arguments):
    strategy = arguments.pop("strategy", None) or SimulatedDecentralizedStrategy(
        AGENTS, **(policy or {})
    )
    if communication is not None:
        strategy.communication = communication
    module = arguments.pop("module", None) or Classifier(**MODULE)
    rows = Rows()
    torch.manual_seed(1)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[rows, ExactResume(), *callbacks],
        **{"max_epochs": 4, "num_sanity_val_steps": 0, "enable_checkpointing": False, **arguments},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, ckpt_path=ckpt_path)
    return rows.agents, trainer, module


@pytest.mark.scale(plugin="SimulatedDecentralizedStrategy", strategy="decentralized_simulated")
@pytest.mark.parametrize("name", CASES)
def test_simulated_agents_equal_real_processes(real, name, tmp_path):
    policy, communication = CASES[name]
    agents, trainer, _ = simulated(tmp_path, communication, policy)
    # Variances of 6 numbers and rounding to 8 bits magnify floating-point differences.
    tolerance = {"narrow": 2e-3}.get(name, 2e-6)
    torch.testing.assert_close(
        torch.stack(agents),
        torch.stack([result["weights"] for result in real(name)]),
        rtol=0,
        atol=tolerance,
    )
    ledger = CommLedger.merged(result["ledger"] for result in real(name))
    for kind in ("gossip", "merge"):
        own, others = trainer.strategy.ledger.total(kind), ledger.total(kind)
        assert own.bytes_sent == pytest.approx(others.bytes_sent, abs=8)
    for metric in ("val/accuracy", "val/loss"):
        found = float(trainer.callback_metrics[metric])
        assert found == pytest.approx(real(name)[0]["metrics"][metric], abs=1e-3)


def test_one_agent_equals_plain_training_bit_for_bit(tmp_path):
    alone, _, _ = simulated(
        tmp_path, None, strategy=SimulatedDecentralizedStrategy(1), module=Classifier()
    )
    _, plain = None, Classifier()
    torch.manual_seed(1)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        max_epochs=4,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(plain)
    assert torch.equal(alone[0], harness.flat(plain))


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 13:
            raise KeyError("raised by a test")


@pytest.mark.scale(plugin="ExactResume", strategy="decentralized_simulated")
@pytest.mark.parametrize("name", ["rarely, merged", "DiLoCo", "adaptive"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    communication = COMMUNICATIONS[name]
    whole, whole_trainer, _ = simulated(
        tmp_path, communication, module=Classifier(), limit_val_batches=0
    )
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=4)
    options = {"enable_checkpointing": True, "limit_val_batches": 0}
    with pytest.raises(KeyError, match="raised by a test"):
        simulated(
            tmp_path, communication, callbacks=[saves, Stop()], module=Classifier(), **options
        )
    resumed, trainer, _ = simulated(
        tmp_path,
        communication,
        module=Classifier(),
        ckpt_path=tmp_path / "last.ckpt",
        limit_val_batches=0,
    )
    assert torch.equal(torch.stack(whole), torch.stack(resumed))
    own, other = trainer.strategy.ledger, whole_trainer.strategy.ledger
    assert own.total("gossip").bytes_sent == other.total("gossip").bytes_sent > 0


def test_a_checkpoint_holds_the_mean_and_loads_normally(tmp_path):
    communication = Communication(Ring(), Schedule(rate=0.0), final_merge=False)
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    agents, _, _ = simulated(tmp_path, communication, callbacks=[saves], enable_checkpointing=True)
    loaded = Classifier.load_from_checkpoint(tmp_path / "last.ckpt")
    mean = torch.stack(agents).mean(0)
    flat = harness.flat(loaded)
    torch.testing.assert_close(flat[FLOATING], mean[FLOATING], rtol=0, atol=1e-6)


@pytest.mark.scale(plugin="CommunicationSchedule", strategy="decentralized_simulated")
@pytest.mark.scale(plugin="MergedEvaluation", strategy="decentralized_simulated")
def test_schedules_and_merged_evaluation_support_simulated_agents(tmp_path):
    schedule = CommunicationSchedule(rate=0.0)
    agents, trainer, module = simulated(tmp_path, None, callbacks=[schedule, MergedEvaluation()])
    assert all(torch.equal(agent, agents[0]) for agent in agents)
    assert torch.equal(harness.flat(module), agents[0])
    metrics = trainer.callback_metrics
    # The last validation follows the merge and compares it with the weights just before.
    assert float(metrics["consensus_distance"]) > 0
    assert float(metrics["val/loss_merged"]) < float(metrics["val/loss_local_mean"])
    assert (tmp_path / "communication.json").exists()


def test_a_partition_gives_agents_shares_of_a_plain_loader(tmp_path):
    partition = DirichletPartition(0.1, 24, seed=3)
    module = Classifier(data="plain", **MODULE)
    strategy = SimulatedDecentralizedStrategy(AGENTS, data=partition)
    _, _, module = simulated(tmp_path, None, strategy=strategy, module=module, max_epochs=1)
    features, labels = harness.samples().tensors
    expected = torch.cat([features[partition.indices(labels, k, AGENTS)][:, 0] for k in range(4)])
    assert torch.equal(torch.tensor(module.seen).sort().values, expected.sort().values)


def test_loaders_without_a_length_are_supported_unless_the_schedule_requires_one(tmp_path):
    stream = {"data": "stream", **MODULE}
    window = Communication(Ring(), Schedule("window", start=0.5, width=0.5))
    constant = Communication(Ring(), Schedule(every_n_steps=5))
    agents, trainer, module = simulated(tmp_path, constant, module=Classifier(**stream))
    assert trainer.global_step == 24
    mean = torch.stack(agents).mean(0)[FLOATING]
    torch.testing.assert_close(harness.flat(module)[FLOATING], mean, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"the run has no known end; set trainer\.max_steps"):
        simulated(tmp_path, window, module=Classifier(**stream))
    _, trainer, _ = simulated(tmp_path, window, module=Classifier(**stream), max_steps=20)
    assert trainer.strategy.ledger.of(0, "gossip").rounds == 9  # the tenth is the merge


def test_loaders_that_end_at_different_batches_raise_with_the_remedy():
    loaders = AgentDataLoaders([range(3), range(2), range(2)])
    batches = iter(loaders)
    assert [next(batches), next(batches)] == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(ValueError, match=r"agents \[1, 2\] have 2 .* trainer\.limit_train_batches"):
        next(batches)
    assert list(AgentDataLoaders([range(2), range(2)])) == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches=2: simulated agents require 1"),
        (
            {"callbacks": [GradientAccumulationScheduler({1: 3})]},
            "accumulate_grad_batches=3: simulated agents require 1",
        ),
        ({"callbacks": [EMAWeightAveraging()]}, "EMAWeightAveraging averages the weights of one"),
        ({"module": Classifier(manual=True)}, "require automatic optimization with one optimizer"),
    ],
)
def test_features_that_simulated_agents_do_not_support_are_refused(arguments, message, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        simulated(tmp_path, None, **arguments)


def test_no_agents_and_too_large_groups_are_refused():
    with pytest.raises(ValueError, match="num_agents=0: expected at least 1"):
        SimulatedDecentralizedStrategy(0)
    with pytest.raises(ValueError, match="group_size=8: there are 4 agents"):
        SimulatedDecentralizedStrategy(4, Hierarchical(8))


def test_resuming_with_a_different_number_of_agents_is_refused(tmp_path):
    saves = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    simulated(tmp_path, None, callbacks=[saves], enable_checkpointing=True, max_epochs=1)
    strategy = SimulatedDecentralizedStrategy(2)
    with pytest.raises(ValueError, match=r"num_agents=2: .* holds 4 agents"):
        simulated(tmp_path, None, strategy=strategy, ckpt_path=tmp_path / "last.ckpt")
