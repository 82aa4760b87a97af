"""The outer optimizer of DiLoCo: a Nesterov step on the agents' mean movement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OuterNesterov:
    """A Nesterov step along the agents' mean movement since the last merge.

    With anchor θ (the weights after the last merge), mean m of the agents and velocity v::

        Δ = θ - m,   v ← μ v + Δ,   θ ← θ - lr (Δ + μ v)

    ``lr=1, momentum=0`` returns the mean itself. Source: Douillard et al., DiLoCo, arXiv
    2311.08105, Algorithm 1, with the outer optimizer of section 2.1 (Nesterov, 0.7 and 0.9).

    Args:
        lr: Outer learning rate lr, above 0.
        momentum: Outer momentum μ, in [0, 1).

    Raises:
        ValueError: An argument is outside its range.
    """

    lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"outer_lr={self.lr}: expected a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"outer_momentum={self.momentum}: expected a number in [0, 1)")


class OuterState:
    """Anchor and velocity of :class:`OuterNesterov`, identical on all agents.

    Args:
        optimizer: Learning rate and momentum.
        initial: The weights that all agents start from, as flat buffers.
        sizes: The number of parameter values in each flat buffer. The values after them belong to
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
        """Return the agents' new weights, given the mean of their current weights."""
        lr, momentum = self.optimizer.lr, self.optimizer.momentum
        stepped = []
        for mean, anchor, velocity in zip(means, self.anchor, self.velocity, strict=True):
            delta = anchor - mean[: len(anchor)]
            velocity.mul_(momentum).add_(delta)
            anchor.sub_(delta.add(velocity, alpha=momentum), alpha=lr)
            stepped.append(torch.cat([anchor, mean[len(anchor) :]]))
        return stepped

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return anchor and velocity."""
        return {"anchor": self.anchor, "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Restore anchor and velocity."""
        for name in ("anchor", "velocity"):
            for own, loaded in zip(getattr(self, name), state[name], strict=True):
                own.copy_(loaded)
