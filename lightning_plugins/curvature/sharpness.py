"""The measures of sharpness of one set of weights, together."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_plugins.curvature.hessian import HessianOperator
from lightning_plugins.curvature.lanczos import largest_eigenvalues
from lightning_plugins.curvature.sam_gap import sam_gap
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
    """Eigenvalues and trace of the Hessian of the mean loss, and SAM's gap.

    Args:
        loss: ``loss(*batch)``, the scalar mean loss of a batch, twice differentiable.
        parameters: the entries of w, all of one dtype and on one device.
        batches: tuples whose first element is a tensor with one row a sample; weighted by it.
        top_k: largest eigenvalues.
        trace_probes: products for Hutch++; 0 leaves the trace out, else at least 3.
        rho: radius of the gap; 0 leaves it out.
        seed: of the random vectors.

    Returns:
        ``lambda_max``, ``lambda_2`` and so on; ``sam_gap``; ``trace`` and its
        ``trace_standard_error``. All NaN where a Hessian-vector product is not finite; an
        eigenvalue is, where fewer different ones exist.

    Raises:
        ValueError: an argument outside its range.
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
        # Fewer than top_k, where the operator has fewer different eigenvalues.
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


class _NotFiniteError(ArithmeticError):
    pass
