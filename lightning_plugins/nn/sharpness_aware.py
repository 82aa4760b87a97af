"""Sharpness-Aware Minimization for custom training loops: perturb, then restore bit for bit.

::

    perturbation = WeightPerturbation(optimizer, rho=0.05)
    loss(batch).backward()
    with perturbation:                  # weights at the worst point of the neighbourhood
        optimizer.zero_grad()
        loss(batch).backward()          # the gradient for the optimizer step
    optimizer.step()                    # the weights are restored

In a Lightning Trainer use :class:`lightning_plugins.callbacks.LateSAM` instead.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins.nn.shards import local, local_gradients, total_norm

Mode = Literal["sam", "asam", "usam"]


class WeightPerturbation:
    """Moves an optimizer's parameters to the first-order worst point of a neighbourhood.

    With g the gradient over all parameters and r = ``rho``, the perturbation is

    - ``sam``: ``r * g / (||g||_2 + 1e-12)`` (Foret et al., arXiv 2010.01412, eq. 2),
    - ``asam``: ``r * w^2 * g / (|| |w| * g ||_2 + 1e-12)``, a radius relative to each weight's size
      (Kwon et al., arXiv 2102.11600, without its eta),
    - ``usam``: ``r * g``, not normalized (Andriushchenko and Flammarion, arXiv 2206.06232, sec. 2).

    The first two do not depend on the scale of the gradient, so a loss scale need not be undone.
    The weights are restored from a copy, because subtracting the perturbation would leave rounding
    errors.

    Args:
        optimizer: The optimizer whose parameters are perturbed, except those without a gradient.
        rho: The radius r of the neighbourhood, above 0.
        mode: The formula of the perturbation.
        parameters: The parameters to perturb, a part of the optimizer's; the norm is over these
            only. None means all.

    Raises:
        ValueError: ``rho`` is not a positive finite number, or ``mode`` is not one of the three.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rho: float = 0.05,
        mode: Mode = "sam",
        parameters: Iterable[Tensor] | None = None,
    ) -> None:
        if not 0 < rho < float("inf"):
            raise ValueError(f"rho={rho}: expected a positive finite radius, for example 0.05")
        if mode not in ("sam", "asam", "usam"):
            raise ValueError(f"mode={mode!r}: expected 'sam', 'asam' or 'usam'")
        self.optimizer = optimizer
        self.rho = rho
        self.mode = mode
        self._chosen = None if parameters is None else {id(parameter) for parameter in parameters}
        self._is_perturbed = False
        self._moved: list[Tensor] = []
        self._originals: list[Tensor] = []

    @torch.no_grad()
    def perturb(self, loss_scale: float = 1.0, overflow_is_routine: bool = False) -> Tensor:
        """Move the weights along their gradient, which is overwritten: zero it afterwards.

        Args:
            loss_scale: The factor on the gradient, which ``usam`` has to undo.
            overflow_is_routine: Whether a gradient that is not finite leaves the weights unchanged.
                A gradient scaler then finds the same overflow after the second pass.

        Returns:
            ``||g||_2``, or ``|| |w| * g ||_2`` for ``asam``, multiplied by the loss scale: a scalar
            of float32 or wider on the parameters' device.

        Raises:
            RuntimeError: The weights are already perturbed.
            ValueError: A gradient is sparse.
        """
        if self._is_perturbed:
            raise RuntimeError("the weights are already perturbed: call restore() first")
        whole = self.parameters_with_gradient()
        if not whole:
            return torch.zeros(())
        parameters, gradients = [local(parameter) for parameter in whole], local_gradients(whole)
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("gradients are sparse, which SAM does not support: set sparse=False")
        if self.mode == "asam":
            torch._foreach_mul_(gradients, torch._foreach_abs(parameters))
        norm = total_norm(gradients, whole)
        if self.mode == "asam":
            torch._foreach_mul_(gradients, torch._foreach_abs(parameters))
        factor = self.rho / loss_scale if self.mode == "usam" else self.rho / (norm + 1e-12)
        self._keep(parameters)
        torch._foreach_mul_(gradients, factor)
        if overflow_is_routine:
            overflow = ~torch.isfinite(norm)
            for gradient in gradients:
                gradient.masked_fill_(overflow, 0.0)
        torch._foreach_add_(parameters, gradients)
        return norm

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the weights bit for bit; do nothing if they are not perturbed."""
        if self._is_perturbed:
            torch._foreach_copy_(self._moved, self._originals)
        self._is_perturbed = False

    def parameters_with_gradient(self) -> list[Tensor]:
        """Return the parameters that :meth:`perturb` would move now."""
        return [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
            and (self._chosen is None or id(parameter) in self._chosen)
        ]

    def __enter__(self) -> "WeightPerturbation":
        self.perturb()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.restore()

    def _keep(self, parameters: list[Tensor]) -> None:
        """Copy the weights, into the memory of the last copy if the parameters are the same."""
        if list(map(id, parameters)) == list(map(id, self._moved)):
            torch._foreach_copy_(self._originals, parameters)
        else:
            self._originals = [parameter.detach().clone() for parameter in parameters]
            self._moved = parameters
        self._is_perturbed = True
