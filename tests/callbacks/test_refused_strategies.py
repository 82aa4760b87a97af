"""Callbacks refuse strategies that they do not support before data is prepared."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.callbacks import (
    AdversarialEvaluation,
    AdversarialTextEvaluation,
    CommunicationSchedule,
    HeadScores,
    LateAdversarialTraining,
    LateSAM,
    MergedEvaluation,
    RouterBiasBalancing,
    RoutingStats,
    SharpnessMonitor,
    StagedTraining,
    TrainingStage,
)
from lightning_plugins.callbacks.replica_check import ReplicaCheck, add_replica_check
from lightning_plugins.litmodels import CausalLM

STRATEGIES = {
    "one device": SingleDeviceStrategy,
    "ddp": DDPStrategy,
    "fsdp2": ModelParallelStrategy,
    "fsdp": FSDPStrategy,
    "deepspeed": DeepSpeedStrategy,
}
REASONS = {
    "fsdp": "requires a GPU accelerator; flattens parameters; use ModelParallelStrategy",
    "deepspeed": "only CUDA in Lightning; keeps gradients and master weights in its engine; use "
    "ModelParallelStrategy",
}
NEED_WHOLE_PARAMETERS = {
    "AdversarialEvaluation": lambda: AdversarialEvaluation(eps=0.1),
    "AdversarialTextEvaluation": AdversarialTextEvaluation,
    "HeadScores": lambda: HeadScores(vocab_size=9),
    "LateAdversarialTraining": lambda: LateAdversarialTraining(eps=0.1),
    "LateSAM": LateSAM,
    "RoutingStats": RoutingStats,
    "SharpnessMonitor": SharpnessMonitor,
    "StagedTraining": lambda: StagedTraining([TrainingStage(3, {"network": 1.0})]),
}
NEED_AGENTS = {
    "CommunicationSchedule": CommunicationSchedule,
    "MergedEvaluation": MergedEvaluation,
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
on_every_device = pytest.mark.parametrize(
    "accelerator", ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda])]
)


class Unprepared(LightningDataModule):
    """Data that no refused run may prepare."""

    def prepare_data(self):
        raise AssertionError("data is prepared")


def assert_refused(said, trainer, model=None):
    """A Trainer in Python refuses before it prepares data, and before the ranks meet."""
    with pytest.raises((MisconfigurationException, ValueError), match=said):
        trainer.fit(model or BoringModel(), datamodule=Unprepared())


def trainer_of(callback, strategy, accelerator="cpu"):
    """A Trainer whose strategy has the name of one that needs other devices or packages."""
    trainer = Trainer(
        accelerator=accelerator, devices=1, logger=False, max_epochs=3, callbacks=callback
    )
    name = STRATEGIES[strategy].__name__
    trainer.strategy.__class__ = type(name, (SingleDeviceStrategy,), {})
    return trainer


def two_ranks(callback, data_parallel, tensor_parallel):
    strategy = ModelParallelStrategy(data_parallel, tensor_parallel)
    return Trainer(
        accelerator="cpu", devices=2, strategy=strategy, logger=False, callbacks=callback
    )


@pytest.fixture
def first_of_two_ranks(monkeypatch):
    """The environment of torchrun, in which the Trainer starts no process."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for name, value in {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.setenv(name, "0")


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="parameters are sharded")
@on_every_device
@pytest.mark.parametrize(
    ("plugin", "strategy"),
    [(plugin, strategy) for plugin in NEED_WHOLE_PARAMETERS for strategy in REASONS],
)
def test_sharded_parameters_are_refused(plugin, strategy, accelerator):
    said = f"{plugin} does not support {STRATEGIES[strategy].__name__}: {REASONS[strategy]}"
    assert_refused(said, trainer_of(NEED_WHOLE_PARAMETERS[plugin](), strategy, accelerator))


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="parameters are sharded")
@pytest.mark.parametrize(
    ("plugin", "strategy"),
    [
        ("SharpnessMonitor", "tp"),
        ("RouterBiasBalancing", "fsdp2"),
        ("RouterBiasBalancing", "tp"),
    ],
)
@pytest.mark.timeout(60)
def test_parts_of_model_parallel_are_refused(first_of_two_ranks, plugin, strategy):
    sizes = (2, 1) if strategy == "fsdp2" else (1, 2)
    callback = {"SharpnessMonitor": SharpnessMonitor, "RouterBiasBalancing": RouterBiasBalancing}
    trainer = two_ranks(callback[plugin](), *sizes)
    assert_refused(f"{plugin} does not support ModelParallel", trainer)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("average", [EMAWeightAveraging(), StochasticWeightAveraging(0.1)])
def test_averages_of_a_copied_module_are_refused(first_of_two_ranks, average):
    trainer = two_ranks([average, LateSAM(start=0)], 1, 2)
    with pytest.raises(MisconfigurationException, match=r"copy of the module.*docs/scale\.md"):
        ReplicaCheck().check(trainer)
    with pytest.raises(MisconfigurationException, match=r"copy of the module.*docs/scale\.md"):
        add_replica_check(trainer)


SPLIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("architecture", "config", "said"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2}, "no tensor-parallel plan for GPT2"),
        ("qwen2_moe", {**SPLIT, "num_attention_heads": 2}, "the plan of Qwen2Moe.* has the style"),
        ("llama", {**SPLIT, "num_attention_heads": 1}, "does not divide num_attention_heads=1"),
    ],
)
def test_an_unsupported_tensor_parallelism_is_refused(
    first_of_two_ranks, architecture, config, said
):
    model = CausalLM(architecture, 32, 12, config)
    assert_refused(f"tensor_parallel_size=2.*{said}", two_ranks([], 1, 2), model)


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="it has no agents")
@on_every_device
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("plugin", NEED_AGENTS)
def test_strategies_without_agents_are_refused(plugin, strategy, accelerator):
    said = f"{plugin} requires agents, but {STRATEGIES[strategy].__name__} has none"
    assert_refused(said, trainer_of(NEED_AGENTS[plugin](), strategy, accelerator))
