"""Makes a transformers network that FSDP2 shards and tensor parallelism splits."""

import atexit
import fnmatch
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

_STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_rep": lambda: ColwiseParallel(output_layouts=Replicate()),
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
}


def parallel_network(
    build: Callable[[], nn.Module], mesh: DeviceMesh, device: torch.device
) -> nn.Module:
    """A network over all ranks of ``mesh`` with the weights that one process would draw.

    Rank 0 draws the weights; the others make the network on the meta device, so that no other rank
    ever holds all weights. The state of torch's CPU generator is then that of rank 0 on all ranks.

    Args:
        build: Makes the network of transformers. It runs on the meta device too.
        mesh: Of Lightning's ``ModelParallelStrategy``, with the dimensions ``data_parallel``
            (FSDP2) and ``tensor_parallel``.
        device: Where the weights of this rank go.

    Raises:
        ValueError: ``tensor_parallel`` is above 1, and the architecture has no plan for it, a plan
            with a style that is not supported, or numbers of heads that it does not divide.
        RuntimeError: On the other ranks, where ``build`` failed on rank 0.
    """
    leave_process_groups_at_exit()
    with torch.device("meta"):
        network = build()
    tensor_parallel = mesh["tensor_parallel"]
    plan = _tensor_parallel_plan(network, tensor_parallel.size())
    source, error = None, None
    if dist.get_rank() == 0:
        try:
            source = build()
        except Exception as failure:  # raised below, after the other ranks know
            error = failure
    _agree_that_rank_0_built(error, device)
    ties = _tied_names(network)
    if plan:
        parallelize_module(network, tensor_parallel, plan)
    if mesh["data_parallel"].size() > 1:
        for block in _blocks(network):
            fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(network, mesh=mesh["data_parallel"])
    network.to_empty(device=device)
    _tie(network, ties)
    load_from_rank_0(network, source)
    _broadcast_buffers(network, source)
    _broadcast_generator(device)
    return network


def share_generator(mesh: DeviceMesh, device: torch.device) -> None:
    """Give all ranks of ``mesh`` its first rank's state of the random generator of ``device``."""
    is_cuda = device.type == "cuda"
    state = torch.cuda.get_rng_state(device) if is_cuda else torch.get_rng_state()
    state = state.to(device)
    dist.broadcast(state, group=mesh.get_group(), group_src=0)
    if is_cuda:
        torch.cuda.set_rng_state(state.cpu(), device)
    else:
        torch.set_rng_state(state)


def leave_process_groups_at_exit() -> None:
    """Destroy gloo's process groups before the interpreter ends; may be called several times.

    Lightning does this for NCCL only. The threads of gloo otherwise run while the interpreter ends,
    and one that needs it then aborts the process (SIGABRT) at the end of a complete run.
    """
    atexit.unregister(_leave_process_groups)
    atexit.register(_leave_process_groups)


def _leave_process_groups() -> None:
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()


def refuse_tensor_parallel(build: Callable[[], nn.Module], size: int) -> None:
    """Refuse a network that tensor parallelism cannot split; needs no process group.

    Args:
        build: Makes the network; it runs on the meta device.
        size: The number of tensor-parallel ranks.

    Raises:
        ValueError: As of :func:`parallel_network`.
    """
    if size > 1:
        with torch.device("meta"):
            network = build()
        _tensor_parallel_plan(network, size)


def elements_per_rank(
    build: Callable[[], nn.Module], data_parallel: int, tensor_parallel: int
) -> int:
    """The largest number of parameter elements on a rank; needs no process group.

    Each takes 16 bytes in float32 with AdamW: weight, gradient, and two averages.

    Args:
        build: Makes the network; it runs on the meta device.
        data_parallel: The number of ranks over which FSDP2 shards.
        tensor_parallel: The number of tensor-parallel ranks.

    Raises:
        ValueError: As of :func:`parallel_network`.
    """
    with torch.device("meta"):
        network = build()
    plan = _tensor_parallel_plan(network, tensor_parallel)
    elements = 0
    for name, parameter in network.named_parameters():
        module, _, kind = name.rpartition(".")
        shape = [*parameter.shape]
        style, owner = plan.get(module), network.get_submodule(module)
        if isinstance(style, ColwiseParallel) or (style and isinstance(owner, nn.Embedding)):
            shape[0] = -(-shape[0] // tensor_parallel)
        elif style and kind == "weight":
            shape[1] = -(-shape[1] // tensor_parallel)
        shape[0] = -(-shape[0] // data_parallel)
        elements += math.prod(shape)
    return elements


def load_from_rank_0(network: nn.Module, whole: nn.Module | None) -> None:
    """Give a sharded network the weights that rank 0 holds in a whole one.

    Args:
        network: A network of ``parallel_network``, on every rank.
        whole: The same network with all its weights on rank 0; None on the other ranks.
    """
    set_model_state_dict(
        network,
        {} if whole is None else whole.state_dict(),
        options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    )


def _tensor_parallel_plan(network: nn.Module, size: int) -> dict[str, ParallelStyle]:
    """The style of each module that is split, by name; empty for one rank."""
    if size == 1:
        return {}
    name = type(network).__name__
    styles = getattr(network, "tp_plan", None) or {}
    if not styles:
        raise ValueError(
            f"tensor_parallel_size={size}: transformers has no tensor-parallel plan for {name}; "
            "set tensor_parallel_size=1"
        )
    unknown = sorted(set(styles.values()) - set(_STYLES))
    if unknown:
        raise ValueError(
            f"tensor_parallel_size={size}: the plan of {name} has the style {unknown[0]!r}, which "
            f"is not supported (supported: {', '.join(sorted(_STYLES))}); set "
            "tensor_parallel_size=1"
        )
    config: Any = network.config
    for heads in ("num_attention_heads", "num_key_value_heads"):
        number = getattr(config, heads, None)
        if number is not None and number % size:
            raise ValueError(
                f"tensor_parallel_size={size} does not divide {heads}={number} of {name}; choose a "
                "size that divides it"
            )
    tied = {module.rpartition(".")[0] for names in _tied_names(network) for module in names}
    return {
        module: _STYLES[style]()
        for module, _ in network.named_modules()
        for pattern, style in styles.items()
        if fnmatch.fnmatchcase(module, pattern) and module not in tied
    }


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks of the network: the children of each outermost list of modules."""
    blocks: list[nn.Module] = []
    inner: set[str] = set()
    for name, module in network.named_modules():
        if not isinstance(module, nn.ModuleList) or name in inner:
            continue
        blocks.extend(module)
        inner.update(f"{name}.{below}" for below, _ in module.named_modules() if below)
    return blocks


def _tied_names(network: nn.Module) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(network: nn.Module, ties: list[list[str]]) -> None:
    """Give each group of names one parameter again, which ``to_empty`` has parted."""
    for first, *others in ties:
        parameter = network.get_parameter(first)
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, parameter)


def _agree_that_rank_0_built(error: Exception | None, device: torch.device) -> None:
    built = torch.tensor([error is None], dtype=torch.int32, device=device)
    dist.broadcast(built, src=0)
    if error is not None:
        raise error
    if not built.item():
        raise RuntimeError("rank 0 could not make the network; it reports the error")


def _broadcast_buffers(network: nn.Module, source: nn.Module | None) -> None:
    """All buffers, also those that a state dictionary leaves out, such as rotary frequencies."""
    values = {} if source is None else dict(source.named_buffers())
    for name, buffer in network.named_buffers():
        if values:
            buffer.copy_(values[name])
        dist.broadcast(buffer, src=0)


def _broadcast_generator(device: torch.device) -> None:
    state = torch.get_rng_state().to(device)
    dist.broadcast(state, src=0)
    torch.set_rng_state(state.cpu())
