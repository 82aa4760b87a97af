"""Arithmetic on parameters that ranks hold in parts: FSDP2 and tensor parallelism (``DTensor``).

Every function also accepts plain tensors and then computes exactly what torch's own function does.
A rank works on its local parts; sums over all ranks take one all-reduce for each set of mesh
dimensions over which parameters are sharded. All ranks must therefore call these functions with the
same parameters in the same order.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local(tensor: Tensor) -> Tensor:
    """The part of ``tensor`` that this rank holds; a plain tensor is returned unchanged.

    Under ``torch.no_grad`` the part shares memory with ``tensor``: a write to it changes both.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of ``tensor``, gathered from the ranks that hold its parts; call it on all of them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def has_shards(network: nn.Module) -> bool:
    """Whether a forward pass of ``network`` communicates, so that every rank must run it."""
    return any(isinstance(module, FSDPModule) for module in network.modules()) or any(
        isinstance(parameter, DTensor) for parameter in network.parameters()
    )


def whole_heads(attention: Tensor, heads: int | None, network: nn.Module) -> Tensor:
    """Attention of all heads, from the heads that tensor parallelism leaves on each rank.

    Args:
        attention: ``(batch, heads of this rank, length, length)``.
        heads: The number of heads of the layer; None if it is unknown.
        network: The network, whose parameters know their mesh.
    """
    if heads is None or attention.shape[1] == heads:
        return attention
    for parameter in network.parameters():
        if isinstance(parameter, DTensor):
            mesh = parameter.device_mesh
            if "tensor_parallel" in (mesh.mesh_dim_names or ()):
                split = DTensor.from_local(attention, mesh["tensor_parallel"], [Shard(1)])
                return split.full_tensor()
    return attention


def is_sharded(tensor: Tensor) -> bool:
    """Whether ranks hold different parts of ``tensor``."""
    return bool(_sharded_dimensions(tensor))


def reshard(network: nn.Module) -> None:
    """Free the parameters that FSDP2 has gathered, so that the next forward pass gathers them anew.

    Passes without a backward pass, such as the generation of captions, can leave parameters
    gathered. The next training step would not see a change of ``requires_grad``: newly unfrozen
    parameters would silently get no gradient.
    """
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def gathered(network: nn.Module) -> Iterator[None]:
    """Hold the parameters that FSDP2 shards whole on every rank while the block runs.

    Passes in the block gather nothing, so ranks may run different numbers of them, as an attack
    does that ends when no sample is left. Every rank must enter and leave the block, and needs the
    memory for all parameters. Gradients of parameters are not supported in the block. Parameters
    that tensor parallelism splits stay split.
    """
    modules = [module for module in network.modules() if isinstance(module, FSDPModule)]
    groups = [group for module in modules for group in _parameter_groups(module)]
    settings = ("post_forward_mesh_info", "reshard_after_backward")  # the first has no getter
    before = [[getattr(group, name) for name in settings] for group in groups]
    try:
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.set_reshard_after_backward(False, recurse=False)
            module.unshard()
        yield
    finally:
        for group, values in zip(groups, before, strict=True):
            for name, value in zip(settings, values, strict=True):
                setattr(group, name, value)
        reshard(network)


def _parameter_groups(module: FSDPModule) -> list[Any]:
    state: Any = module._get_fsdp_state()
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    group = state._fsdp_param_group  # torch before 2.11
    return [] if group is None else [group]


def like_parameter(gradient: Tensor, parameter: Tensor) -> Tensor:
    """``gradient`` with the placements of its parameter.

    Under tensor parallelism a gradient can be replicated where its parameter is sharded, for
    example that of a row-wise embedding.
    """
    if not (isinstance(gradient, DTensor) and isinstance(parameter, DTensor)):
        return gradient
    if gradient.placements == parameter.placements:
        return gradient
    return gradient.redistribute(placements=parameter.placements)


def local_gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """This rank's part of each parameter's gradient, placed as its parameter.

    Args:
        parameters: Parameters that have a gradient.
    """
    gradients: list[Tensor] = []
    for parameter in parameters:
        assert parameter.grad is not None
        gradients.append(local(like_parameter(parameter.grad, parameter)))
    return gradients


def summed(values: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The sum over all parameters of a quantity that each rank has of its own part.

    A parameter that a mesh dimension replicates counts once there, not once per rank.

    Args:
        values: A scalar per parameter, computed from this rank's part.
        parameters: The parameters.

    Returns:
        The sum, a scalar that is equal on all ranks.
    """
    groups: dict[tuple[DeviceMesh | None, tuple[int, ...]], list[Tensor]] = {}
    for value, parameter in zip(values, parameters, strict=True):
        dimensions = _sharded_dimensions(parameter)
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) and dimensions else None
        groups.setdefault((mesh, dimensions), []).append(value)
    totals = []
    for (mesh, dimensions), group in groups.items():
        total = torch.stack(group).sum()
        if mesh is not None:
            for dimension in dimensions:
                all_reduce(total, group=mesh.get_group(dimension))
        totals.append(total)
    return torch.stack(totals).sum()


def first_indices(tensor: Tensor) -> tuple[int, ...]:
    """Where this rank's part begins in the whole tensor: an index for each dimension."""
    if not isinstance(tensor, DTensor):
        return (0,) * tensor.dim()
    _, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    # An empty part begins behind the last element.
    return tuple(min(one, size) for one, size in zip(offset, tensor.shape, strict=True))


def sum_over_parts_(values: Tensor, parameter: Tensor) -> Tensor:
    """Add up, in place, a tensor that each rank has of its own part of ``parameter``.

    Args:
        values: A plain tensor of the same shape on all ranks.
        parameter: The ranks that hold different parts of it are those that are summed.

    Returns:
        ``values``, equal on all ranks.
    """
    if isinstance(parameter, DTensor):
        for dimension in _sharded_dimensions(parameter):
            all_reduce(values, group=parameter.device_mesh.get_group(dimension))
    return values


def total_norm(tensors: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm over all elements, accumulated in float32 or wider.

    Args:
        tensors: This rank's part of one tensor per parameter, such as its gradient.
        parameters: The parameters, which say how the parts are placed.

    Returns:
        A scalar that is equal on all ranks.
    """
    dtype = functools.reduce(torch.promote_types, [t.dtype for t in tensors], torch.float32)
    norms = list(torch._foreach_norm(list(tensors), 2.0, dtype=dtype))
    if any(map(is_sharded, parameters)):
        return summed([norm.square() for norm in norms], parameters).sqrt()
    return torch.linalg.vector_norm(torch.stack(norms))


@torch.no_grad()
def clip_gradients_by_norm(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most ``max_norm``.

    ``torch.nn.utils.clip_grad_norm_`` raises where plain and distributed parameters occur together,
    which is usual under tensor parallelism.

    Args:
        parameters: Those without a gradient are left out.
        max_norm: Largest Euclidean norm over all elements of all gradients.

    Returns:
        The norm before clipping.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if not trained:
        return torch.zeros(())
    _place_gradients(trained)
    gradients = local_gradients(trained)
    norm = total_norm(gradients, trained)
    factor = torch.clamp(max_norm / (norm + 1e-6), max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.dtype))
    return norm


@torch.no_grad()
def clip_gradients_by_value(parameters: Sequence[Tensor], limit: float) -> None:
    """Clamp each element of each gradient to ``[-limit, limit]``."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    _place_gradients(trained)
    for gradient in local_gradients(trained):
        gradient.clamp_(-limit, limit)


def _place_gradients(parameters: Sequence[Tensor]) -> None:
    """Place each gradient as its parameter, so that a change of the local part is kept."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad = like_parameter(parameter.grad, parameter)


def _sharded_dimensions(tensor: Tensor) -> tuple[int, ...]:
    """Mesh dimensions over which ranks hold different parts.

    Not ``is_shard()``: it is False for the strided shards of FSDP2 on top of tensor parallelism.
    """
    if not isinstance(tensor, DTensor):
        return ()
    return tuple(i for i, place in enumerate(tensor.placements) if not place.is_replicate())
