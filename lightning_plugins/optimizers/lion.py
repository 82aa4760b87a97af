"""Lion: steps along the sign of a momentum."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion: steps of size lr in the direction sign(b1·m + (1 - b1)·g), decoupled weight decay.

    PyTorch does not include Lion; this class is the base of ``BlockwiseLion``.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675,
    Algorithm 2.

    Args:
        params: Parameters or parameter groups, as in PyTorch's optimizers.
        lr: Learning rate, >= 0; the authors use a third to a tenth of AdamW's.
        betas: Coefficients of the step's interpolation and of the momentum, each in [0, 1).
        weight_decay: Decoupled weight decay, >= 0; the authors use three to ten times AdamW's.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr={lr}: expected >= 0")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas}: expected two numbers in [0, 1)")
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay}: expected >= 0")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum = state["exp_avg"]
                parameter.mul_(1 - lr * group["weight_decay"])
                direction = momentum.lerp(gradient.to(momentum.dtype), 1 - beta1).sign_()
                parameter.add_(direction, alpha=-lr)
                momentum.lerp_(gradient.to(momentum.dtype), 1 - beta2)
        return loss
