"""Features of the Trainer with decentralized training: their effect, or their refusal."""

from functools import partial

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_plugins.datamodules import DirichletPartition
from lightning_plugins.strategies import DecentralizedStrategy
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import ExplicitMatrix, Hierarchical, Ring

RARELY = Communication(Ring(), Schedule(every_n_steps=5))
PARTITION = DirichletPartition(0.1, 24, seed=3)
CASES = {
    "monitored": {
        "communication": RARELY,
        "checkpoint": {
            "monitor": "val/accuracy",
            "filename": "{epoch}-{train/loss_step:.4f}",
            "save_top_k": 1,
            "auto_insert_metric_name": False,
        },
    },
    "stopped": {
        "communication": RARELY,
        "callbacks": [EarlyStopping("val/loss", min_delta=100.0, patience=1)],
        "trainer": {"max_epochs": 9},
    },
    "plateau": {"communication": RARELY, "module": {"plateau": True}, "trainer": {"max_epochs": 5}},
    "EMA": {"communication": RARELY, "callbacks": [partial(EMAWeightAveraging, decay=0.5)]},
    "SWA": {
        "communication": RARELY,
        "module": {"plain": True},
        "callbacks": [partial(StochasticWeightAveraging, swa_lrs=0.1, swa_epoch_start=1)],
        "trainer": {"max_epochs": 4},
    },
    "learning-rate finder": {
        "callbacks": [LearningRateFinder(num_training_steps=3)],
        "may_fail": True,
    },
    "partition": {"module": {"data": "plain"}, "strategy": {"data": PARTITION}},
    "manual": {"communication": RARELY, "module": {"manual": True}},
    "wrong shape": {"module": {"hidden": [8, 8, 9]}, "may_fail": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ordinary")


@pytest.fixture(scope="module")
def ran(folder):
    results = harness.run_trainers(3, folder, CASES)
    assert None not in results
    return lambda case: [result[case] for result in results]


def assert_all_equal(results):
    assert all(torch.equal(r["weights"], results[0]["weights"]) for r in results)


def test_a_filename_with_a_value_that_differs_between_agents_names_one_checkpoint(ran, folder):
    assert len(ran("monitored")) == 3
    # If each agent used its own value in the path, their files would lie in several folders.
    (checkpoint,) = (folder / "monitored").rglob("*.ckpt")
    agents = list(checkpoint.with_name(f"{checkpoint.name}.agents").glob("*.pt"))
    assert len(agents) == 3


def test_all_agents_stop_early_at_the_same_step_and_merge(ran):
    assert len({result["global_step"] for result in ran("stopped")}) == 1
    assert ran("stopped")[0]["global_step"] < 9 * 8
    assert_all_equal(ran("stopped"))


def test_a_plateau_of_a_reduced_value_lowers_every_agents_learning_rate_equally(ran):
    rates = {result["lr"] for result in ran("plateau")}
    assert len(rates) == 1
    assert rates.pop() < 0.1


@pytest.mark.parametrize("case", ["EMA", "SWA"])
def test_weights_that_a_callback_averages_at_the_end_are_merged(ran, case):
    assert_all_equal(ran(case))


def test_the_learning_rate_finder_is_refused(ran):
    for result in ran("learning-rate finder"):
        assert "each agent would find a different learning rate" in result["error"]


def test_a_partition_splits_a_plain_loader_by_label(ran):
    features, labels = harness.samples().tensors
    for agent, result in enumerate(ran("partition")):
        expected = [features[PARTITION.indices(labels, agent, 3, epoch)][:, 0] for epoch in (0, 1)]
        seen = torch.tensor(result["seen"])
        for drawn, part in zip(expected, seen.chunk(2), strict=True):
            assert torch.equal(part.sort().values, drawn.sort().values)


def test_agents_gossip_after_steps_of_manual_optimization(ran):
    assert ran("manual")[0]["global_step"] == 16
    assert_all_equal(ran("manual"))


def test_models_of_different_shapes_are_refused_on_all_agents(ran):
    for result in ran("wrong shape"):
        assert "agent 2 has a model of another shape" in result["error"]


class Normalized(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = nn.SyncBatchNorm(3)


def fit_here(strategy, module=None, **arguments):
    trainer = Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False, **arguments)
    trainer.strategy.connect(module or Normalized())
    trainer.strategy.check(trainer)


def test_synchronized_batch_normalization_is_refused():
    with pytest.raises(MisconfigurationException, match="SyncBatchNorm averages statistics"):
        fit_here(DecentralizedStrategy(), Normalized())
    with pytest.raises(MisconfigurationException, match="set sync_batchnorm=False"):
        fit_here(DecentralizedStrategy(), Normalized(), sync_batchnorm=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topology": "ring"}, r"topology='ring': expected one of .* for example Ring\(\)"),
        ({"data": "mine"}, "data='mine': expected 'iid', 'user', or a partition"),
        ({"buffers": "merge"}, "buffers='merge': expected one of mix, local, recalibrate"),
        ({"optimizer_state": "drop"}, "optimizer_state='drop': expected one of keep"),
        ({"wire": "int4"}, "wire='int4': expected one of weights, bfloat16, int8"),
        ({"on_peer_failure": "ignore"}, "on_peer_failure='ignore': expected 'raise' or 'drop'"),
        ({"timeout_seconds": 0}, "timeout_seconds=0: expected more than 0"),
        ({"min_agents": 0}, "min_agents=0: expected at least 1"),
        ({"start_method": "exec"}, "start_method='exec': expected 'popen'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecentralizedStrategy(**arguments)


@pytest.mark.parametrize("topology", [ExplicitMatrix([[1.0]]), Hierarchical(2)])
def test_a_topology_that_does_not_support_the_number_of_agents_is_refused(topology, tmp_path):
    case = {"strategy": {"topology": topology}, "may_fail": True}
    agents = 3 if isinstance(topology, ExplicitMatrix) else 1
    (result, *_) = harness.run_trainers(agents, tmp_path, {"case": case})
    assert f"{agents} agents" in result["case"]["error"]


def test_drop_with_lightnings_launcher_is_refused_with_the_right_command(tmp_path):
    case = {"strategy": {"on_peer_failure": "drop"}, "without_store": True, "may_fail": True}
    (result,) = harness.run_trainers(1, tmp_path, {"case": case})
    assert "python -m lightning_plugins.strategies.supervisor 4 -m" in result["case"]["error"]
