"""Sharpness of one set of weights: eigenvalues, trace, and the loss in SAM's neighbourhood."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from lightning_plugins.curvature.hessian import HessianOperator
from lightning_plugins.curvature.lanczos import largest_eigenvalues
from lightning_plugins.curvature.trace import hutch_plus_plus_trace


def measure_sharpness(
    loss: Callable[..., Tensor],
    parameters: Sequence[Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    *,
    top_k: int = 1,
    trace_probes: int = 0,
    rho: float = 0.05,
    seed: int = 0,
) -> dict[str, float]:
    """Compute eigenvalues and trace of the Hessian of the mean loss, and SAM's gap.

    Args:
        loss: A function ``loss(*batch)`` that returns the scalar mean loss of a batch; twice
            differentiable.
        parameters: The tensors that make up w, all of one dtype and on one device.
        batches: Tuples whose first element is a tensor with one row per sample; batches are
            weighted by the number of rows.
        top_k: The number of largest eigenvalues.
        trace_probes: The number of products for Hutch++, at least 3; 0 omits the trace.
        rho: The radius of the gap; 0 omits it.
        seed: The seed of the random vectors.

    Returns:
        ``lambda_max``, ``lambda_2`` and so on; ``sam_gap``; ``trace`` and
        ``trace_standard_error``. All values are NaN if a Hessian-vector product is not finite. An
        eigenvalue is NaN if fewer than ``top_k`` different ones exist.

    Raises:
        ValueError: An argument is outside its range.
    """
    operator = HessianOperator(loss, parameters, batches)

    def product(vector: Tensor) -> Tensor:
        found = operator(vector)
        if not torch.isfinite(found).all():
            raise _NotFiniteError
        return found

    vectors = {"seed": seed, "dtype": parameters[0].dtype, "device": parameters[0].device}
    names = ["lambda_max", *(f"lambda_{place}" for place in range(2, top_k + 1))]
    names += ["sam_gap"] * bool(rho) + ["trace", "trace_standard_error"] * bool(trace_probes)
    measured = dict.fromkeys(names, math.nan)
    try:
        found = largest_eigenvalues(product, operator.dimension, top_k, **vectors)  # type: ignore[arg-type]
        # Not strict: the operator may have fewer than top_k different eigenvalues.
        measured.update(zip(names[:top_k], found.values.tolist(), strict=False))
        if trace_probes:
            trace = hutch_plus_plus_trace(product, operator.dimension, trace_probes, **vectors)  # type: ignore[arg-type]
            measured["trace"] = trace.value
            measured["trace_standard_error"] = trace.standard_error
    except _NotFiniteError:
        return dict.fromkeys(names, math.nan)
    if rho:
        measured["sam_gap"] = sam_gap(loss, parameters, batches, rho)
    return measured


def sam_gap(
    loss: Callable[..., Tensor],
    parameters: Iterable[Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    rho: float = 0.05,
) -> float:
    """Compute ``L(w + rho * g / ||g||) - L(w)``, L the mean loss over all batches, g its gradient.

    The gap is the rise of the loss at the first-order worst point within ``rho``. It needs no
    assumption on scale or curvature, and SAM minimizes it (Foret et al., arXiv 2010.01412, eq. 2).
    The weights are restored bit for bit, and ``.grad`` is not changed.

    Args:
        loss: A function ``loss(*batch)`` that returns the scalar mean loss of a batch.
        parameters: The tensors that make up w.
        batches: Tuples of tensors whose first dimension counts samples; batches are weighted by it.
        rho: The radius, above 0.

    Raises:
        ValueError: ``rho`` is not positive, or there is no batch.
    """
    if not rho > 0:
        raise ValueError(f"rho={rho}: expected a radius above 0, for example 0.05")
    if not batches:
        raise ValueError("batches is empty: expected at least one batch of samples")
    weights = list(parameters)
    samples = sum(len(batch[0]) for batch in batches)
    before, gradient = 0.0, [torch.zeros_like(weight) for weight in weights]
    with torch.enable_grad():
        for batch in batches:
            share = len(batch[0]) / samples
            value = loss(*batch)
            parts = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(gradient, parts, alpha=share)
            before += share * float(value.detach())
    norm = torch.stack([part.double().norm() for part in gradient]).norm()
    originals = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        try:
            for weight, part in zip(weights, gradient, strict=True):
                weight.add_(part * (rho / (norm + 1e-12)).to(part.dtype))
            after = sum(float(loss(*batch)) * len(batch[0]) / samples for batch in batches)
        finally:
            torch._foreach_copy_(weights, originals)
    return after - before


class _NotFiniteError(ArithmeticError):
    pass
