"""Raises an error if ranks that should hold equal weights do not."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_plugins._lightning_compat import callbacks_of
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.nn.shards import local

_STRATEGIES = ("DDPStrategy", "ModelParallelStrategy")
_CHECKED_STEPS = 2
_CHUNK = 1 << 22  # bytes, which become int64


class ReplicaCheck(PluginCallback):
    """Compares the weights of ranks after the first two optimizer steps of a run.

    Under DDP all ranks must hold equal parameters; under ``ModelParallelStrategy`` all ranks that
    hold the same shard. Ranks that train on their own without an error are the fault that nobody
    sees in a loss curve: a module that ``ModelParallelStrategy`` runs without sharding it, or a
    ``training_step`` that steps on its own. The comparison is exact. Later steps cost nothing.

    ``LateSAM``, ``LateAdversarialTraining`` and ``StagedTraining`` add this callback to their
    Trainer.

    Raises:
        MisconfigurationException: The ranks differ. It names the parameter and two of the ranks.
    """

    def __init__(self) -> None:
        self._checked = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps of this run from here."""
        self._step = trainer.global_step
        supported = type(trainer.strategy).__name__ in _STRATEGIES and trainer.world_size > 1
        self._checked = 0 if supported else _CHECKED_STEPS

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the weights if this batch ended with one of the first optimizer steps."""
        if self._checked >= _CHECKED_STEPS or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._checked += 1
        _compare(trainer, pl_module)


def add_replica_check(trainer: Trainer) -> None:
    """Add a ``ReplicaCheck`` to the Trainer unless it has one; call it in ``setup``."""
    if not any(isinstance(callback, ReplicaCheck) for callback in callbacks_of(trainer)):
        trainer.callbacks.append(ReplicaCheck())  # type: ignore[attr-defined]


@torch.no_grad()
def _compare(trainer: Trainer, module: LightningModule) -> None:
    ignored = getattr(module, "_ddp_params_and_buffers_to_ignore", ())
    named = [(n, p) for n, p in module.named_parameters() if n not in ignored]
    if not named:
        return
    fingerprints = torch.stack([_fingerprint(local(parameter)) for _, parameter in named])
    fingerprints = fingerprints.to(trainer.strategy.root_device)
    of_ranks = [torch.empty_like(fingerprints) for _ in range(trainer.world_size)]
    dist.all_gather(of_ranks, fingerprints)
    for index, (name, parameter) in enumerate(named):
        first_of_shard: dict[tuple[int, ...], int] = {}
        for rank in range(trainer.world_size):
            first = first_of_shard.setdefault(_shard_of(parameter, trainer, rank), rank)
            if not torch.equal(of_ranks[first][index], of_ranks[rank][index]):
                raise MisconfigurationException(
                    f"after optimizer step {trainer.global_step} the ranks {first} and {rank} "
                    f"hold different values of {name}, which {type(trainer.strategy).__name__} "
                    f"should keep equal: {type(module).__name__} trains replicas without "
                    "synchronizing them. Shard the network in configure_model, and change weights "
                    "in the same way on every rank"
                )


def _fingerprint(tensor: Tensor) -> Tensor:
    """Two 64-bit sums over the bytes of a tensor, the second weighted by the position."""
    total = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    every_byte = tensor.detach().contiguous().flatten().view(torch.uint8)
    for number, chunk in enumerate(every_byte.split(_CHUNK)):
        values = chunk.to(torch.int64)
        positions = torch.arange(1, len(values) + 1, device=values.device) + number * _CHUNK
        total += torch.stack([values.sum(), (values * positions).sum()])
    return total


def _shard_of(parameter: Tensor, trainer: Trainer, rank: int) -> tuple[int, ...]:
    """The position of a rank along the mesh dimensions over which ``parameter`` is sharded."""
    if not isinstance(parameter, DTensor):
        return ()
    mesh = trainer.strategy.device_mesh  # type: ignore[attr-defined]
    names = parameter.device_mesh.mesh_dim_names or ()
    position = (mesh.mesh == rank).nonzero()[0].tolist()
    return tuple(
        position[mesh.mesh_dim_names.index(name)]
        for name, place in zip(names, parameter.placements, strict=True)
        if not place.is_replicate()
    )
