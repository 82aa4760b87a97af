"""Checks of arguments, Trainers and loaders that decentralized training does not support."""

from collections.abc import Sequence
from typing import Any, get_args

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_plugins._import_names import of_root
from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.nn.shards import has_shards
from lightning_plugins.strategies.agent_dataloaders import Partition
from lightning_plugins.strategies.batch_norm import normalizations
from lightning_plugins.strategies.communicated_tensors import Buffers, OptimizerState
from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.wire import WireName


def check_arguments(data: Any, buffers: str, optimizer_state: str, wire: str) -> None:
    """Check the arguments that both strategies share.

    Raises:
        ValueError: An argument is outside its range.
    """
    if data not in ("iid", "user") and not isinstance(data, Partition):
        raise ValueError(
            f"data={data!r}: expected 'iid', 'user', or a partition such as "
            "lightning_plugins.datamodules.DirichletPartition(alpha=0.1, samples_per_agent=500)"
        )
    for name, value, allowed in (
        ("buffers", buffers, get_args(Buffers)),
        ("optimizer_state", optimizer_state, get_args(OptimizerState)),
        ("wire", wire, get_args(WireName)),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")


def check_trainer(trainer: Trainer, buffers: str, layer_sync: Any) -> None:
    """Refuse Trainer features that would synchronize agents or that cannot work with them.

    Raises:
        MisconfigurationException: The Trainer uses synchronized batch normalization or a
            learning-rate finder, or ``buffers`` is ``recalibrate`` with manual optimization.
    """
    finder = of_root(trainer, "callbacks.LearningRateFinder")
    if any(isinstance(callback, finder) for callback in callbacks_of(trainer)):
        raise MisconfigurationException(
            "LearningRateFinder is not supported with decentralized training, because each agent "
            "would find a different learning rate; run it on one device first"
        )
    module = trainer.lightning_module
    has_sync = module is not None and any(
        isinstance(part, nn.SyncBatchNorm) for part in module.modules()
    )
    if layer_sync is not None or has_sync:
        raise MisconfigurationException(
            "SyncBatchNorm averages statistics over agents at every forward pass, which is not "
            "decentralized training: set sync_batchnorm=False and use torch.nn.BatchNorm, with "
            "buffers='mix' or 'recalibrate'"
        )
    is_manual = module is not None and not module.automatic_optimization
    if buffers == "recalibrate" and is_manual and normalizations(module):
        raise MisconfigurationException(
            "buffers='recalibrate' runs training_step without a backward pass, which manual "
            "optimization does not support: set buffers='mix' or 'local'"
        )


def check_processes(world_size: int, processes_per_agent: int, backend: str) -> None:
    """Refuse processes that cannot be divided into agents.

    Raises:
        MisconfigurationException: The number of processes is not a multiple, the backend is not
            gloo, or torch's default process group exists already.
    """
    name = f"processes_per_agent={processes_per_agent}"
    if world_size % processes_per_agent:
        raise MisconfigurationException(
            f"{name}: {world_size} processes (devices x num_nodes) cannot be divided into agents "
            "of this size; choose a multiple"
        )
    if backend != "gloo":
        raise MisconfigurationException(
            f"{name} does not support the backend {backend}: set accelerator='cpu' and "
            "process_group_backend='gloo', or processes_per_agent=1"
        )
    if dist.is_initialized() and dist.get_world_size() != processes_per_agent:
        raise MisconfigurationException(
            f"{name}: torch's default process group exists already with {dist.get_world_size()} "
            "processes: do not call torch.distributed.init_process_group"
        )


def check_shards(module: nn.Module) -> None:
    """Refuse a module whose parameters are not sharded, or not created yet.

    Raises:
        MisconfigurationException: The message names the remedy.
    """
    if not has_shards(module):
        raise MisconfigurationException(
            f"inside='fsdp': {type(module).__name__}.configure_model shards no parameter; call "
            "torch.distributed.fsdp.fully_shard(layer, mesh=self.device_mesh['data_parallel']) in "
            "it, or set inside='ddp'"
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        raise MisconfigurationException(
            "inside='fsdp' does not support parameters on the meta device: create them on the CPU"
        )


def check_overlap(communication: Communication, optimizer_state: str, obstacle: str | None) -> None:
    """Refuse what needs the result of a round at once.

    Args:
        communication: The topology and the schedule.
        optimizer_state: What a round does to the optimizer state.
        obstacle: A setting of the strategy that prevents transfers in the background.

    Raises:
        ValueError: The message names the setting and its remedy.
    """
    refused = {
        f"optimizer_state={optimizer_state!r}; set 'keep'": optimizer_state != "keep",
        "outer_lr, which steps from the mean of all; remove it": communication.outer is not None,
        "shape='adaptive', which measures the weights after a round; set another shape": (
            communication.schedule.shape == "adaptive"
        ),
        f"{obstacle}": obstacle is not None,
    }
    if found := [reason for reason, is_used in refused.items() if is_used]:
        raise ValueError(f"overlap=True does not support {found[0]}, or set overlap=False")


def check_loaders(agents: Sequence[object], batches: Sequence[float]) -> None:
    """Check that all agents, or all processes, have the same number of training batches.

    Raises:
        ValueError: The numbers differ; the message lists them.
    """
    if len(set(batches)) > 1:
        counts = ", ".join(
            f"agent {agent} has {count:g}" for agent, count in zip(agents, batches, strict=True)
        )
        raise ValueError(
            f"agents have different numbers of training batches per epoch ({counts}), so their "
            "communication rounds would not match: set trainer.limit_train_batches to the smallest "
            "number, or give every agent the same number of samples, as DirichletPartition does"
        )
