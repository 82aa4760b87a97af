"""Estimates the trace of a symmetric operator from products with random vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_plugins.curvature.lanczos import itself


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace.

    Attributes:
        value: The estimate.
        standard_error: The standard error from the spread of the random part; NaN with one probe.
        products: The number of matrix-vector products.
    """

    value: float
    standard_error: float
    products: int


def hutchinson_trace(
    operator: Callable[[Tensor], Tensor],
    dimension: int,
    probes: int = 30,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    total: Callable[[Tensor], Tensor] = itself,
) -> Trace:
    """Estimate ``tr(A)`` without bias as the mean of ``z^T A z`` over random sign vectors ``z``.

    The variance for one probe is twice the sum of the squared off-diagonal entries. Source:
    Hutchinson, Communications in Statistics 18(3), 1989.

    Args:
        operator: A symmetric function that maps (dimension,) to (dimension,).
        dimension: The dimension d, at least 1.
        probes: The number of products, at least 1.
        seed: The seed of the signs; the global generator is not used.
        dtype: The dtype of the vectors passed to ``operator``.
        device: The device of the vectors.
        total: As in :func:`largest_eigenvalues`.

    Raises:
        ValueError: ``probes`` is below 1.
    """
    if probes < 1:
        raise ValueError(f"probes={probes}: expected at least 1")
    signs = _signs(dimension, probes, seed).to(device, dtype)
    return _mean_of([_quadratic_form(operator, sign, total) for sign in signs], probes)


def hutch_plus_plus_trace(
    operator: Callable[[Tensor], Tensor],
    dimension: int,
    probes: int = 30,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Trace:
    """Estimate ``tr(A)`` with Hutch++, which computes the dominant part of the spectrum exactly.

    Q is an orthonormal basis of ``A S`` for random signs S. The estimate is ``tr(Q^T A Q)`` plus
    Hutchinson's estimate for ``(I - Q Q^T) A (I - Q Q^T)``. For positive semidefinite A the error
    decreases with the number of products n as 1/n instead of 1/sqrt(n). Source: Meyer, Musco, Musco
    and Woodruff, arXiv 2010.09649, algorithm 1. The standard error is that of the second part.

    Args:
        operator: A symmetric function that maps (dimension,) to (dimension,).
        dimension: The dimension d, at least 1.
        probes: The number of products, at least 3; a third each for S, for Q and for the second
            part.
        seed: The seed of the signs; the global generator is not used.
        dtype: The dtype of the vectors passed to ``operator``.
        device: The device of the vectors.

    Raises:
        ValueError: ``probes`` is below 3.
    """
    if probes < 3:
        raise ValueError(f"probes={probes}: expected at least 3, one for each part")
    rank = min(probes // 3, dimension)
    signs = _signs(dimension, probes - rank, seed).to(device, dtype)
    sketch = torch.stack([operator(sign) for sign in signs[:rank]], dim=1)
    basis, _ = torch.linalg.qr(sketch)
    exact = math.fsum(_quadratic_form(operator, column) for column in basis.T)
    rest = []
    for sign in signs[rank:]:
        orthogonal = sign - basis @ (basis.T @ sign)
        rest.append(_quadratic_form(operator, orthogonal))
    estimate = _mean_of(rest, products=2 * rank + len(rest))
    return Trace(exact + estimate.value, estimate.standard_error, estimate.products)


def _signs(dimension: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(0, 2, (count, dimension), generator=generator) - 1.0


def _quadratic_form(
    operator: Callable[[Tensor], Tensor],
    vector: Tensor,
    total: Callable[[Tensor], Tensor] = itself,
) -> float:
    return float(total(vector.double() @ operator(vector).double()))


def _mean_of(values: list[float], products: int) -> Trace:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Trace(mean, math.nan, products)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Trace(mean, math.sqrt(variance / len(values)), products)
