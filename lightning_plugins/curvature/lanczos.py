"""Computes the largest eigenvalues of a symmetric operator."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of an operator.

    Attributes:
        values: The eigenvalues in descending order, shape (count,), float64.
        residuals: Bounds on the distance of each value to an exact eigenvalue, shape (count,).
        products: The number of matrix-vector products.
    """

    values: Tensor
    residuals: Tensor
    products: int


def itself(value: Tensor) -> Tensor:
    """Return the value: the sum over one rank."""
    return value


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
    total: Callable[[Tensor], Tensor] = itself,
) -> Eigenvalues:
    """Compute the ``count`` algebraically largest eigenvalues of a symmetric operator.

    The method is Lanczos with full reorthogonalization (Golub and Van Loan, Matrix Computations,
    section 10.3). It stops when the residual bound of each requested value is below ``tolerance``
    times the largest coefficient so far, or after ``max_products``; ``residuals`` bounds the error
    of the values. The basis stores ``products * dimension`` numbers. Equal eigenvalues are found
    only once.

    Args:
        operator: A function that maps (dimension,) to (dimension,).
        dimension: The dimension d, at least 1.
        count: The number of eigenvalues, from 1 to ``dimension``.
        tolerance: The relative residual at which to stop, above 0.
        max_products: The largest number of matrix-vector products, at least ``count``.
        seed: The seed of the Gaussian start vector; the global generator is not used.
        dtype: The dtype of the vectors passed to ``operator``; coefficients are float64.
        device: The device of the vectors.
        total: Returns the sum of a tensor over all ranks, if each holds a part of every vector.
            ``dimension`` is then that of this rank's part, and ``seed`` differs between ranks.

    Raises:
        ValueError: An argument is outside its range, or a product is not finite.
    """
    whole_dimension = int(total(torch.tensor(dimension, device=device)))
    if not 1 <= count <= whole_dimension:
        raise ValueError(f"count={count}: expected 1 to dimension={whole_dimension}")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: expected a number above 0")
    if max_products < count:
        raise ValueError(f"max_products={max_products}: expected at least count={count}")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(dimension, generator=generator, dtype=torch.float64)
    length = total(start.square().sum().to(device)).sqrt().cpu()
    vector = (start / length).to(device, dtype)
    basis: list[Tensor] = []
    diagonal: list[float] = []
    offdiagonal: list[float] = []
    while True:
        basis.append(vector)
        product = operator(vector)
        if total((~torch.isfinite(product)).sum()):
            raise ValueError(
                "the operator returned a non-finite product: are weights and loss finite?"
            )
        diagonal.append(float(total(product.double() @ vector.double())))
        # Twice, because one pass leaves a component of the order of the rounding error.
        known = torch.stack(basis)
        for _ in range(2):
            product = product - known.T @ total(known @ product)
        norm = float(total(product.double().square().sum()).sqrt())
        found = _ritz(diagonal, offdiagonal, norm, count)
        scale = max(map(abs, (*diagonal, *offdiagonal, norm)))
        exhausted = len(basis) == whole_dimension or norm <= 1e3 * torch.finfo(dtype).eps * scale
        if exhausted or len(basis) >= max_products:
            return found
        if len(found.values) == count and bool((found.residuals <= tolerance * scale).all()):
            return found
        offdiagonal.append(norm)
        vector = product / norm


def _ritz(
    diagonal: list[float], offdiagonal: list[float], next_norm: float, count: int
) -> Eigenvalues:
    """Return the largest Ritz values with their bounds ``|beta * last component|``."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if offdiagonal:
        coefficients = torch.tensor(offdiagonal, dtype=torch.float64)
        matrix += torch.diag(coefficients, 1) + torch.diag(coefficients, -1)
    values, vectors = torch.linalg.eigh(matrix)
    residuals = (next_norm * vectors[-1]).abs()
    return Eigenvalues(values.flip(0)[:count], residuals.flip(0)[:count], len(diagonal))
