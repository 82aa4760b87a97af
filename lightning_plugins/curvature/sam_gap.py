"""How much the loss rises at the first-order worst point of a neighbourhood."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def sam_gap(
    loss: Callable[..., Tensor],
    parameters: Iterable[Tensor],
    batches: Sequence[tuple[Tensor, ...]],
    rho: float = 0.05,
) -> float:
    """``L(w + rho * g / ||g||) - L(w)`` for the mean loss L over all batches and its gradient g.

    It needs no assumption on scale or curvature, and is what SAM lowers (Foret et al., arXiv
    2010.01412, eq. 2). The weights are put back bit for bit; ``.grad`` stays as it was.

    Args:
        loss: ``loss(*batch)``, the scalar mean loss of a batch.
        parameters: the entries of w.
        batches: tuples of tensors whose first dimension counts samples; weighted by it.
        rho: radius, > 0.

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
