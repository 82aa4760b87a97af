"""Raises an error if ranks hold different weights, or are at different places of the run."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.loops import callbacks_of
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.rank_meetings import RankMeetings
from lightning_plugins.callbacks.unsupported_strategies import refuse_copied_modules
from lightning_plugins.nn.shards import local

_STRATEGIES = ("DDPStrategy", "ModelParallelStrategy")
_CHECKED_STEPS = 2
_CHUNK = 1 << 22  # bytes, which become int64


class ReplicaCheck(PluginCallback):
    """Compares the weights and the progress of ranks in the first two optimizer steps of a run.

    Under DDP all ranks must hold equal parameters; under ``ModelParallelStrategy`` all ranks that
    hold the same shard. Ranks that train on their own without an error are the fault that nobody
    sees in a loss curve: a module that ``ModelParallelStrategy`` runs without sharding it, or a
    ``training_step`` that steps on its own. The comparison is exact, and is made after the first
    two steps.

    Ranks that wait for each other at different places would hang until the timeout of the process
    group: a metric that one rank alone logs with ``sync_dist=True``, or one rank that ends its
    training before the others. The ranks therefore compare where they are, through the store of
    the process group: at each step of the first two, and at the beginning and the end of each
    validation, of each epoch and of training. In all other steps, a rank only writes the number of
    its batches to the store, which is no collective operation and uses no device.

    The command line adds this callback, and ``LateSAM``, ``LateAdversarialTraining`` and
    ``StagedTraining`` add it to their Trainer, as do the callbacks that measure during training.

    Raises:
        MisconfigurationException: The ranks differ. It names the parameter and two of the ranks, or
            where two of the ranks are.
    """

    def __init__(self) -> None:
        self._checked = 0
        self._step = 0
        self._meetings: RankMeetings | None = None
        self._validated = self._ended_epoch = False

    def check(self, trainer: Trainer) -> None:
        """Refuse averages of weights that lack the shards of the other ranks."""
        refuse_copied_modules(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse them before training starts."""
        if stage == "fit":
            self.check(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the places of the ranks from here."""
        if trains_replicas(trainer):
            self._meetings = RankMeetings(trainer)
        self._checked, self._validated, self._ended_epoch = 0, False, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps of this run from here."""
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks have ended the epoch before and its logging."""
        self._meet("begin an epoch")
        self._compare_calls(False)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compare whether all ranks train."""
        self._meet_in_first_steps("train on a batch")

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Compare whether all ranks have a loss, and have logged the same metrics."""
        self._meet_in_first_steps("run a backward pass")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Compare whether all ranks take the step."""
        self._meet_in_first_steps("take an optimizer step")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the weights if this batch ended with one of the first optimizer steps."""
        if self._checked >= _CHECKED_STEPS or trainer.global_step == self._step:
            return
        self._meet_in_first_steps("end a batch")
        self._step = trainer.global_step
        self._checked += 1
        self._compare_calls(False)
        if self._meetings is not None:
            _compare(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks validate here."""
        self._meet("begin a validation")
        self._compare_calls(not self._validated)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks have logged the same metrics."""
        self._meet("end a validation")
        self._validated = self._validated or not trainer.sanity_checking
        self._compare_calls(False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks end the epoch here, and log the same metrics of it."""
        self._meet("end an epoch")
        self._compare_calls(not self._ended_epoch)
        self._ended_epoch = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare whether all ranks end their training here."""
        self._meet("end its training")
        self._compare_calls(False)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let ranks that wait for this one fail too."""
        if self._meetings is not None:
            self._meetings.report(exception)
            self._meetings = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop observing the run."""
        if self._meetings is not None:
            self._meetings.close()
            self._meetings = None

    def _meet(self, place: str) -> None:
        if self._meetings is not None:
            self._meetings.meet(place)

    def _meet_in_first_steps(self, place: str) -> None:
        if self._checked < _CHECKED_STEPS:
            self._meet(place)

    def _compare_calls(self, compares: bool) -> None:
        """Compare the strategy's collective calls from here, or in the first steps only."""
        if self._meetings is not None:
            self._meetings.compares = compares or self._checked < _CHECKED_STEPS


def trains_replicas(trainer: Trainer) -> bool:
    """Whether several ranks train one model, whose gradients the strategy averages."""
    return type(trainer.strategy).__name__ in _STRATEGIES and trainer.world_size > 1


def add_replica_check(trainer: Trainer) -> None:
    """Add a ``ReplicaCheck`` to a Trainer of several processes; call it in ``setup``.

    It comes first, before callbacks whose hooks wait for the other ranks.
    """
    callbacks = callbacks_of(trainer)
    if trainer.num_devices * trainer.num_nodes == 1:
        return
    refuse_copied_modules(trainer)
    if not any(isinstance(callback, ReplicaCheck) for callback in callbacks):
        # A new list, because the hooks of the present one are being called.
        trainer.callbacks = [ReplicaCheck(), *callbacks]  # type: ignore[attr-defined]


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
