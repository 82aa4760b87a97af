"""What decentralized training cannot work with."""

from collections.abc import Sequence
from typing import Any, get_args

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_plugins._lightning_compat import callbacks_of
from lightning_plugins.strategies.agent_dataloaders import Partition
from lightning_plugins.strategies.batch_norm import normalizations
from lightning_plugins.strategies.communicated_tensors import Buffers, OptimizerState


def check_arguments(data: Any, buffers: str, optimizer_state: str, wire: str) -> None:
    """Refuse arguments outside their ranges.

    Raises:
        ValueError: such an argument.
    """
    if data not in ("iid", "user") and not isinstance(data, Partition):
        raise ValueError(
            f"data={data!r}: expected 'iid', 'user', or a partition such as "
            "lightning_plugins.datamodules.DirichletPartition(alpha=0.1, samples_per_agent=500)"
        )
    for name, value, allowed in (
        ("buffers", buffers, get_args(Buffers)),
        ("optimizer_state", optimizer_state, get_args(OptimizerState)),
        ("wire", wire, ("weights", "bfloat16")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")


def check_trainer(trainer: Trainer, buffers: str, layer_sync: Any) -> None:
    """Refuse a Trainer in which agents would not be agents.

    Raises:
        MisconfigurationException: synchronized batch normalization, a learning-rate finder, or
            re-estimation without automatic optimization.
    """
    if any(isinstance(callback, LearningRateFinder) for callback in callbacks_of(trainer)):
        raise MisconfigurationException(
            "LearningRateFinder with decentralized training: each agent would find a learning rate "
            "of its own; find it on one device first"
        )
    module = trainer.lightning_module
    has_sync = module is not None and any(
        isinstance(part, nn.SyncBatchNorm) for part in module.modules()
    )
    if layer_sync is not None or has_sync:
        raise MisconfigurationException(
            "SyncBatchNorm averages statistics over agents at every forward pass, which is not "
            "decentralized training: set sync_batchnorm=False and take torch.nn.BatchNorm, with "
            "buffers='mix' or 'recalibrate'"
        )
    is_manual = module is not None and not module.automatic_optimization
    if buffers == "recalibrate" and is_manual and normalizations(module):
        raise MisconfigurationException(
            "buffers='recalibrate' runs training_step without a backward pass, which manual "
            "optimization does not allow: set buffers='mix' or 'local'"
        )


def check_loaders(agents: Sequence[int], batches: Sequence[float]) -> None:
    """Refuse agents that have different numbers of batches in an epoch.

    Raises:
        ValueError: they differ, with the numbers.
    """
    if len(set(batches)) > 1:
        counts = ", ".join(
            f"agent {agent} has {count:g}" for agent, count in zip(agents, batches, strict=True)
        )
        raise ValueError(
            f"agents have different numbers of training batches an epoch ({counts}), so their "
            "rounds would not meet: set trainer.limit_train_batches to the smallest, or give each "
            "agent as many samples, as DirichletPartition does"
        )
