"""Callbacks refuse strategies that they do not support before data is prepared."""

import pytest
import torch
from lightning.pytorch import Trainer
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


def check(callback, accelerator, strategy):
    """Replace the strategy's class by one for which devices or packages may be missing here."""
    trainer = Trainer(accelerator=accelerator, devices=1, logger=False, max_epochs=3)
    trainer.strategy.__class__ = STRATEGIES[strategy]
    callback.check(trainer)


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="parameters are sharded")
@on_every_device
@pytest.mark.parametrize(
    ("plugin", "strategy"),
    [(plugin, strategy) for plugin in NEED_WHOLE_PARAMETERS for strategy in REASONS],
)
def test_sharded_parameters_are_refused(plugin, strategy, accelerator):
    said = f"{plugin} does not support {STRATEGIES[strategy].__name__}: {REASONS[strategy]}"
    with pytest.raises(MisconfigurationException, match=said):
        check(NEED_WHOLE_PARAMETERS[plugin](), accelerator, strategy)


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="parameters are sharded")
@pytest.mark.parametrize(
    ("plugin", "strategy"),
    [
        ("SharpnessMonitor", "tp"),
        ("RouterBiasBalancing", "fsdp2"),
        ("RouterBiasBalancing", "tp"),
    ],
)
def test_parts_of_model_parallel_are_refused_before_the_processes_start(plugin, strategy):
    sizes = (2, 1) if strategy == "fsdp2" else (1, 2)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy=ModelParallelStrategy(*sizes), logger=False
    )
    callback = {"SharpnessMonitor": SharpnessMonitor, "RouterBiasBalancing": RouterBiasBalancing}
    with pytest.raises(MisconfigurationException, match=f"{plugin} does not support ModelParallel"):
        callback[plugin]().check(trainer)


@pytest.mark.scale(plugin="{plugin}", strategy="{strategy}", refused="it has no agents")
@on_every_device
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("plugin", NEED_AGENTS)
def test_strategies_without_agents_are_refused(plugin, strategy, accelerator):
    said = f"{plugin} requires agents, but {STRATEGIES[strategy].__name__} has none"
    with pytest.raises(MisconfigurationException, match=said):
        check(NEED_AGENTS[plugin](), accelerator, strategy)
