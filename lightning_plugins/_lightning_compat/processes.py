"""Processes, the shards of the parameters, and the set-up of a strategy.

- ``torch.distributed``'s ``_get_default_store``: the ranks compare their places through it.
- ``ModelParallelStrategy._data_parallel_size``, ``_tensor_parallel_size``, ``_device_mesh``: how
  parameters are sharded, and which share of the data a rank reads.
- ``DDPStrategy._ddp_kwargs``: whether the graph is static, and whether DDP searches for unused
  parameters. Without it, the graph is assumed to be dynamic and the search to be off.
- ``_DDPForwardRedirection``, ``prepare_for_backward``, ``LightningModule._device_mesh``: agents of
  several processes.
- ``_init_dist_connection``, ``_get_default_process_group_backend_for_device``,
  ``_optimizers_to_device``, ``_SubprocessScriptLauncher``, ``_MultiProcessingLauncher``,
  ``reset_seed``: set-up of a strategy with several processes. They are imported where they are
  used, so a release without one of them affects only the decentralized strategies.
"""

import subprocess
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from torch import nn
from torch.distributed import Store
from torch.optim import Optimizer

from lightning_plugins._import_names import of_root

Sharding = Literal["fsdp2", "tp"]
"""The kinds of sharding of ``ModelParallelStrategy``: data-parallel (FSDP2) or tensor-parallel."""


def data_share(trainer: Trainer | None) -> tuple[int, int]:
    """Which share of the data this process reads: its index, and the number of shares.

    Under ``ModelParallelStrategy`` the ranks of one tensor-parallel group read the same batches, so
    there are fewer shares than processes.

    Args:
        trainer: None is one process.
    """
    if trainer is None:
        return 0, 1
    mesh = getattr(getattr(trainer, "strategy", None), "_device_mesh", None)
    if mesh is None:
        return trainer.global_rank, trainer.world_size
    data_parallel = mesh["data_parallel"]
    return data_parallel.get_local_rank(), data_parallel.size()


def model_parallel_sizes(trainer: Trainer) -> dict[Sharding, int]:
    """Return the number of ranks over which each kind of sharding splits the parameters.

    Also before the processes exist. Both are 1 unless the strategy is ``ModelParallelStrategy``, or
    ``DecentralizedStrategy`` with FSDP2 inside an agent.
    """
    strategy: Any = trainer.strategy
    if getattr(strategy, "inside", None) == "fsdp":
        return {"fsdp2": strategy.processes_per_agent, "tp": 1}
    if not type(strategy).__name__.startswith("ModelParallel"):
        return {"fsdp2": 1, "tp": 1}
    options = ("_data_parallel_size", "_tensor_parallel_size")
    sizes = [getattr(strategy, option, "auto") for option in options]
    default = trainer.num_nodes, trainer.num_devices
    fsdp2, tp = (int(d if size == "auto" else size) for size, d in zip(sizes, default, strict=True))
    return {"fsdp2": fsdp2, "tp": tp}


def uses_static_graph(trainer: Trainer) -> bool:
    """Return whether the strategy uses DistributedDataParallel with ``static_graph=True``."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("static_graph"))


def finds_unused_parameters(trainer: Trainer) -> bool:
    """Return whether DistributedDataParallel searches for parameters without gradients."""
    return bool(getattr(trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters"))


def no_gradient_synchronization(trainer: Trainer) -> AbstractContextManager[None]:
    """Return a context in which the strategy does not synchronize gradients between ranks."""
    block = getattr(trainer.strategy, "block_backward_sync", None)
    return nullcontext() if block is None else block()


def default_backend(device: torch.device) -> str:
    """Return the default backend of a process group for tensors on ``device``."""
    from lightning.fabric.utilities.distributed import (
        _get_default_process_group_backend_for_device,
    )

    return _get_default_process_group_backend_for_device(device)


def connect_processes(
    environment: ClusterEnvironment, backend: str, timeout: timedelta, device: torch.device
) -> None:
    """Join torch's default process group, unless this process already belongs to one."""
    from lightning.fabric.utilities.distributed import _init_dist_connection

    device_id = None if device.type == "cpu" else device
    _init_dist_connection(environment, backend, timeout=timeout, device_id=device_id)


def default_store() -> Store:
    """Return the store of torch's default process group."""
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def give_device_mesh(module: LightningModule, device: torch.device, processes: int) -> None:
    """Set ``module.device_mesh`` over torch's default process group.

    Its dimensions are those of ``ModelParallelStrategy``, so ``configure_model`` is the same.
    """
    from torch.distributed.device_mesh import init_device_mesh

    names = ("data_parallel", "tensor_parallel")
    module._device_mesh = init_device_mesh(device.type, (processes, 1), mesh_dim_names=names)


def wrapped_in_ddp(strategy: Strategy, module: nn.Module, device: torch.device) -> nn.Module:
    """Return ``module`` in ``DistributedDataParallel``, called as ``DDPStrategy`` calls it."""
    redirection = of_root(strategy, "strategies.ddp._DDPForwardRedirection")
    strategy._forward_redirection = redirection()
    ids = None if device.type == "cpu" else [device.index]
    return nn.parallel.DistributedDataParallel(module, device_ids=ids)


def prepare_manual_backward(strategy: Strategy, module: nn.Module, output: Any) -> None:
    """Let ``DistributedDataParallel`` synchronize the gradients of a manual backward pass."""
    of_root(strategy, "overrides.distributed.prepare_for_backward")(module, output)


def restart_seed() -> None:
    """Seed the generators again, as Lightning does when it connects several processes."""
    from lightning.fabric.utilities.seed import reset_seed

    reset_seed()


def process_launcher(
    strategy: Strategy,
    environment: ClusterEnvironment,
    num_processes: int,
    num_nodes: int,
    start_method: Literal["popen", "spawn", "fork"],
) -> Any:
    """Return Lightning's launcher, which runs the script again or starts functions."""
    # Of the same import name as the Trainer, which recognizes launchers by their class.
    if start_method == "popen":
        launcher = of_root(strategy, "strategies.launchers._SubprocessScriptLauncher")
        return launcher(environment, num_processes, num_nodes)
    launcher = of_root(strategy, "strategies.launchers._MultiProcessingLauncher")
    return launcher(strategy, start_method=start_method)


def started_processes(launcher: Any) -> list[subprocess.Popen]:
    """Return the processes in which the launcher runs the script again."""
    processes = getattr(launcher, "procs", [])
    return [process for process in processes if isinstance(process, subprocess.Popen)]


def optimizers_to_device(optimizers: list[Optimizer], device: torch.device) -> None:
    """Move the optimizers' state."""
    from lightning.fabric.utilities.optimizer import _optimizers_to_device

    _optimizers_to_device(optimizers, device)
