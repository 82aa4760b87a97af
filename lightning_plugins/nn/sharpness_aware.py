"""Sharpness-Aware Minimization for training loops of your own: perturb, then restore bit for bit.

    perturbation = WeightPerturbation(optimizer, rho=0.05)
    loss(batch).backward()
    with perturbation:                  # weights at the worst point of the neighbourhood
        optimizer.zero_grad()
        loss(batch).backward()          # the gradient that SAM steps with
    optimizer.step()                    # weights are back where they were

In a Lightning Trainer use :class:`lightning_plugins.callbacks.LateSAM` instead.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class WeightPerturbation:
    """Moves an optimizer's parameters to the first-order worst point within radius ``rho``.

    With g the gradient over all parameters, ``e = rho * g / (||g||_2 + 1e-12)`` (Foret et al.,
    arXiv 2010.01412, eq. 2). Adaptive (Kwon et al., arXiv 2102.11600, eq. 9, without its eta):
    ``e = rho * w^2 * g / (|| |w| * g ||_2 + 1e-12)``. Both are invariant to a factor on the
    gradient, so a loss scale needs no undoing.

    Restoring copies a clone of the weights back; subtracting ``e`` would leave rounding behind.

    Args:
        optimizer: whose parameters are perturbed; those without a gradient stay.
        rho: radius of the neighbourhood, > 0.
        adaptive: measure the radius relative to each weight's size (ASAM).

    Raises:
        ValueError: ``rho`` is not a positive finite number.
    """

    def __init__(self, optimizer: Optimizer, rho: float = 0.05, adaptive: bool = False) -> None:
        if not 0 < rho < float("inf"):
            raise ValueError(f"rho={rho}: expected a positive finite radius, for example 0.05")
        self.optimizer = optimizer
        self.rho = rho
        self.adaptive = adaptive
        self._moved: list[Tensor] = []
        self._originals: list[Tensor] = []

    def gradient_norm(self) -> Tensor:
        """``||g||_2``, or ``|| |w| * g ||_2`` when adaptive: a float32 scalar on the device."""
        return _total_norm(self._scaled_gradients(self._parameters_with_gradient()))

    @torch.no_grad()
    def perturb(self, gradient_norm: Tensor | None = None) -> Tensor:
        """Move the weights along their present gradient.

        Args:
            gradient_norm: what :meth:`gradient_norm` returned, if it was asked already.

        Returns:
            The gradient norm, a scalar on the device.

        Raises:
            RuntimeError: the weights are perturbed already.
        """
        if self._moved:
            raise RuntimeError("the weights are perturbed already: call restore() first")
        parameters = self._parameters_with_gradient()
        if not parameters:
            return torch.zeros(())
        directions = self._scaled_gradients(parameters)
        norm = _total_norm(directions) if gradient_norm is None else gradient_norm
        self._originals = [parameter.detach().clone() for parameter in parameters]
        self._moved = parameters
        if self.adaptive:
            torch._foreach_mul_(directions, torch._foreach_abs(self._originals))
        scale = self.rho / (norm + 1e-12)
        for parameter, direction in zip(parameters, directions, strict=True):
            step = direction * scale.to(direction.device, torch.float32)
            parameter.add_(step.to(parameter.dtype))
        return norm

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back, bit for bit; does nothing if they are not perturbed."""
        if self._moved:
            torch._foreach_copy_(self._moved, self._originals)
        self._moved, self._originals = [], []

    def __enter__(self) -> "WeightPerturbation":
        self.perturb()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.restore()

    def _parameters_with_gradient(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [p for group in groups for p in group["params"] if p.grad is not None]

    @torch.no_grad()
    def _scaled_gradients(self, parameters: list[Tensor]) -> list[Tensor]:
        gradients = [parameter.grad for parameter in parameters]
        if not self.adaptive:
            return gradients  # type: ignore[return-value]
        return list(torch._foreach_mul(torch._foreach_abs(parameters), gradients))  # type: ignore[arg-type]


def _total_norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    device = tensors[0].device
    norms = torch._foreach_norm(tensors, 2.0, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))
