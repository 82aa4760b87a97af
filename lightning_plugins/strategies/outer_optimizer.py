"""The outer optimizer of DiLoCo: a Nesterov step on what the agents moved on average."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OuterNesterov:
    """Treats the agents' mean movement since their last merge as a gradient.

    With anchor θ (the weights after the last merge), mean m and velocity v::

        Δ = θ - m,   v ← μ v + Δ,   θ ← θ - lr (Δ + μ v)

    ``lr=1, momentum=0`` is the plain mean. Source: Douillard et al., DiLoCo, arXiv 2311.08105,
    Algorithm 1, with the outer optimizer of section 2.1 (Nesterov, 0.7 and 0.9).

    Args:
        lr: outer learning rate, above 0.
        momentum: in [0, 1).

    Raises:
        ValueError: an argument outside its range.
    """

    lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"outer_lr={self.lr}: expected a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"outer_momentum={self.momentum}: expected a number in [0, 1)")


class OuterState:
    """Anchor and velocity of :class:`OuterNesterov`, the same on all agents.

    Args:
        optimizer: the rule.
        initial: the weights that all agents start from, as flat buffers.
        sizes: for each buffer, how many of its values are parameters; behind them stand averaged
            buffers of the model, which have no gradient and take the mean.
    """

    def __init__(
        self, optimizer: OuterNesterov, initial: Sequence[Tensor], sizes: Sequence[int]
    ) -> None:
        self.optimizer = optimizer
        self.anchor = [flat[:n].clone() for flat, n in zip(initial, sizes, strict=True)]
        self.velocity = [torch.zeros_like(part) for part in self.anchor]

    @torch.no_grad()
    def step(self, means: Sequence[Tensor]) -> list[Tensor]:
        """The agents' new weights, of the mean of what they hold."""
        lr, momentum = self.optimizer.lr, self.optimizer.momentum
        stepped = []
        for mean, anchor, velocity in zip(means, self.anchor, self.velocity, strict=True):
            delta = anchor - mean[: len(anchor)]
            velocity.mul_(momentum).add_(delta)
            anchor.sub_(delta.add(velocity, alpha=momentum), alpha=lr)
            stepped.append(torch.cat([anchor, mean[len(anchor) :]]))
        return stepped

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Anchor and velocity."""
        return {"anchor": self.anchor, "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Put anchor and velocity back."""
        for name in ("anchor", "velocity"):
            for own, loaded in zip(getattr(self, name), state[name], strict=True):
                own.copy_(loaded)
