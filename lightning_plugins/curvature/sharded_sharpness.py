"""Sharpness of a network whose parameters FSDP2 shards, from first derivatives only."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_plugins.curvature.lanczos import largest_eigenvalues
from lightning_plugins.curvature.trace import hutchinson_trace
from lightning_plugins.nn.shards import is_sharded, local, reshard

_STEP = 1.5e-4
"""Length of a difference step, relative to that of the weights: 1e-4 relative error in float32."""


class ShardedHessian:
    """The Hessian of the mean loss over all ranks, applied to this rank's part of a vector.

    FSDP2 has no second derivative. The product is the central difference of two gradients,
    ``H v = (g(w + h v) - g(w - h v)) / 2h`` with ``||h v|| = 1.5e-4 ||w||``. Its error is of the
    order of h^2 and of the rounding of g divided by h. All ranks must make the same calls.

    Args:
        network: The network, sharded with ``fully_shard`` over one mesh dimension.
        loss: A function ``loss(*batch)`` that returns the scalar mean loss of a batch.
        batches: This rank's batches: tuples whose first element has one row per sample. All ranks
            have equally many batches of the same sizes.

    Raises:
        ValueError: A trainable parameter is not sharded, or not float32 or float64.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Tensor],
        batches: Sequence[tuple[Tensor, ...]],
    ) -> None:
        reshard(network)
        self.network = network
        self.loss = loss
        self.batches = batches
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        for name, parameter in named:
            if not is_sharded(parameter):
                raise ValueError(f"{name} is not sharded: call fully_shard on the whole network")
            if parameter.dtype not in (torch.float32, torch.float64):
                raise ValueError(f"{name} is {parameter.dtype}: differences need float32")
        self.parameters: list[Tensor] = [parameter for _, parameter in named]
        first = self.parameters[0]
        assert isinstance(first, DTensor)
        self._group = first.device_mesh.get_group(0)
        with torch.no_grad():
            self._parts = [local(parameter) for parameter in self.parameters]
            self._length = self.norm(self._flat(self._parts))

    @property
    def dimension(self) -> int:
        """The number of scalar parameters on this rank."""
        return sum(part.numel() for part in self._parts)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""
        value = value.clone()
        dist.all_reduce(value, group=self._group)
        return value

    def norm(self, vector: Tensor) -> Tensor:
        """The Euclidean norm of a vector of which each rank holds a part."""
        return self.total(vector.double().square().sum()).sqrt()

    def __call__(self, vector: Tensor) -> Tensor:
        """Return this rank's part of ``H v``."""
        step = (_STEP * self._length / (self.norm(vector) + 1e-300)).item()
        with self.moved_by(vector * step):
            ahead = self.gradient()
        with self.moved_by(vector * -step):
            return (ahead - self.gradient()) / (2 * step)

    @contextmanager
    def moved_by(self, vector: Tensor) -> Iterator[None]:
        """Add a vector to the weights inside the block; they are restored bit for bit."""
        originals = [part.clone() for part in self._parts]
        sizes = [part.numel() for part in self._parts]
        try:
            self._write(
                [
                    original + piece.view_as(original).to(original.dtype)
                    for original, piece in zip(originals, vector.split(sizes), strict=True)
                ]
            )
            yield
        finally:
            self._write(originals)

    def gradient(self) -> Tensor:
        """Return this rank's part of the gradient; ``.grad`` of the parameters is not changed."""
        before = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        samples = self._samples
        try:
            for batch in self.batches:
                with torch.enable_grad():
                    (self.loss(*batch) * (len(batch[0]) / samples)).backward()
            gradients = [
                torch.zeros_like(part) if parameter.grad is None else local(parameter.grad)
                for parameter, part in zip(self.parameters, self._parts, strict=True)
            ]
            return self._flat([gradient.detach() for gradient in gradients])
        finally:
            for parameter, gradient in zip(self.parameters, before, strict=True):
                parameter.grad = gradient

    @torch.no_grad()
    def mean_loss(self) -> float:
        """Return the mean loss over the samples of all ranks."""
        own = sum(float(self.loss(*batch)) * len(batch[0]) for batch in self.batches)
        device = self._parts[0].device
        sums = self.total(torch.tensor([own, self._samples], dtype=torch.float64, device=device))
        reshard(self.network)
        return float(sums[0] / sums[1])

    @property
    def _samples(self) -> int:
        return sum(len(batch[0]) for batch in self.batches)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        reshard(self.network)  # else the next pass uses the weights gathered before
        torch._foreach_copy_(self._parts, values)

    @staticmethod
    def _flat(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(-1) for tensor in tensors])


def measure_sharded_sharpness(
    network: nn.Module,
    loss: Callable[..., Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    *,
    top_k: int = 1,
    trace_probes: int = 0,
    rho: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """As :func:`measure_sharpness`, for parameters that FSDP2 shards; equal on all ranks.

    The trace is Hutchinson's estimate.

    Args:
        network: See :class:`ShardedHessian`, as for the next two arguments.
        loss: A function ``loss(*batch)`` that returns the scalar mean loss of a batch.
        batches: This rank's batches.
        top_k: The number of largest eigenvalues.
        trace_probes: The number of products for the trace; 0 omits it.
        rho: The radius of SAM's gap; 0 omits it.
        seed: The seed of the random vectors.
    """
    hessian = ShardedHessian(network, loss, batches)
    names = ["lambda_max", *(f"lambda_{place}" for place in range(2, top_k + 1))]
    names += ["sam_gap"] * bool(rho) + ["trace", "trace_standard_error"] * bool(trace_probes)
    measured = dict.fromkeys(names, math.nan)
    gradient = hessian.gradient()
    length = hessian.norm(gradient)
    if not math.isfinite(length):  # on all ranks
        return measured
    vectors: dict[str, Any] = {
        "seed": seed + 1_000_003 * dist.get_rank(),
        "dtype": gradient.dtype,
        "device": gradient.device,
        "total": hessian.total,
    }
    try:
        found = largest_eigenvalues(hessian, hessian.dimension, top_k, **vectors)
    except ValueError:  # a product is not finite, on all ranks
        return measured
    measured.update(zip(names[:top_k], found.values.tolist(), strict=False))
    if trace_probes:
        trace = hutchinson_trace(hessian, hessian.dimension, trace_probes, **vectors)
        measured["trace"], measured["trace_standard_error"] = trace.value, trace.standard_error
    if rho:
        before = hessian.mean_loss()
        with hessian.moved_by(gradient * (rho / (length + 1e-12))):
            measured["sam_gap"] = hessian.mean_loss() - before
    return measured
