"""Largest eigenvalues of a symmetric operator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues that were found.

    Attributes:
        values: in descending order, shape (count,), float64.
        residuals: bounds on the distance of each value to an exact eigenvalue, shape (count,).
        products: matrix-vector products spent.
    """

    values: Tensor
    residuals: Tensor
    products: int


def largest_eigenvalues(
    operator: Callable[[Tensor], Tensor],
    dimension: int,
    count: int = 1,
    *,
    tolerance: float = 1e-3,
    max_products: int = 200,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Eigenvalues:
    """The ``count`` algebraically largest eigenvalues of a symmetric operator.

    Lanczos with full reorthogonalization (Golub and Van Loan, Matrix Computations, section 10.3).
    It stops as soon as every wanted value's residual bound is below ``tolerance`` times the largest
    coefficient met, or at ``max_products``; ask ``residuals`` how good the values are. The basis
    takes ``products * dimension`` numbers. Of equal eigenvalues it finds one.

    Args:
        operator: maps (dimension,) to (dimension,).
        dimension: d >= 1.
        count: how many, from 1 to ``dimension``.
        tolerance: relative residual to stop at, > 0.
        max_products: matrix-vector products at most, at least ``count``.
        seed: of the Gaussian start vector; the global generator is not touched.
        dtype: of the vectors given to ``operator``; coefficients are kept in float64.
        device: of the vectors.

    Raises:
        ValueError: an argument outside its range, or a non-finite product.
    """
    if not 1 <= count <= dimension:
        raise ValueError(f"count={count}: expected 1 to dimension={dimension}")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: expected a number above 0")
    if max_products < count:
        raise ValueError(f"max_products={max_products}: expected at least count={count}")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(dimension, generator=generator, dtype=torch.float64)
    vector = (start / start.norm()).to(device, dtype)
    basis: list[Tensor] = []
    diagonal: list[float] = []
    offdiagonal: list[float] = []
    while True:
        basis.append(vector)
        product = operator(vector)
        if not torch.isfinite(product).all():
            raise ValueError("the operator gave a non-finite product: are weights and loss finite?")
        diagonal.append(float(product.double() @ vector.double()))
        # Twice, because one pass leaves a component of the order of the rounding error.
        known = torch.stack(basis)
        for _ in range(2):
            product = product - known.T @ (known @ product)
        norm = float(product.double().norm())
        found = _ritz(diagonal, offdiagonal, norm, count)
        scale = max(map(abs, (*diagonal, *offdiagonal, norm)))
        exhausted = len(basis) == dimension or norm <= 1e3 * torch.finfo(dtype).eps * scale
        if exhausted or len(basis) >= max_products:
            return found
        if len(found.values) == count and bool((found.residuals <= tolerance * scale).all()):
            return found
        offdiagonal.append(norm)
        vector = product / norm


def _ritz(
    diagonal: list[float], offdiagonal: list[float], next_norm: float, count: int
) -> Eigenvalues:
    """Largest Ritz values of the tridiagonal matrix, with the bound ``|beta * last component|``."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if offdiagonal:
        beside = torch.tensor(offdiagonal, dtype=torch.float64)
        matrix += torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    residuals = (next_norm * vectors[-1]).abs()
    return Eigenvalues(values.flip(0)[:count], residuals.flip(0)[:count], len(diagonal))
