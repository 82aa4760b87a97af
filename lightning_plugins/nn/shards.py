"""Arithmetic on parameters that ranks hold in parts: FSDP2 and tensor parallelism (``DTensor``).

Every function also accepts plain tensors and then computes exactly what torch's own function does.
A rank works on its local parts; sums over all ranks take one all-reduce for each set of mesh
dimensions over which parameters are sharded. All ranks must therefore call these functions with the
same parameters in the same order.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local(tensor: Tensor) -> Tensor:
    """The part of ``tensor`` that this rank holds; a plain tensor is returned unchanged.

    Under ``torch.no_grad`` the part shares memory with ``tensor``: a write to it changes both.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


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
