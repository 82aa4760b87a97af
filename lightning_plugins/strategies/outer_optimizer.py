"""The outer optimizer of DiLoCo: a Nesterov step on the agents' mean movement."""

import math
from collections.abc import Mapping
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
    """Anchor and velocity of :class:`OuterNesterov` by parameter name, identical on all agents.

    A parameter that joins later, because it was frozen, takes the plain mean in its first round.

    Args:
        optimizer: Learning rate and momentum.
        initial: The weights that all agents start from, by name.
    """

    def __init__(self, optimizer: OuterNesterov, initial: Mapping[str, Tensor]) -> None:
        self.optimizer = optimizer
        self.anchor = {name: tensor.clone() for name, tensor in initial.items()}
        self.velocity = {name: torch.zeros_like(tensor) for name, tensor in initial.items()}

    @torch.no_grad()
    def step(self, means: Mapping[str, Tensor]) -> None:
        """Replace the ``means`` of the agents' current weights, in place, by their new weights."""
        lr, momentum = self.optimizer.lr, self.optimizer.momentum
        for name, mean in means.items():
            if name not in self.anchor:
                self.anchor[name] = mean.clone()
                self.velocity[name] = torch.zeros_like(mean)
                continue
            anchor, velocity = self.anchor[name], self.velocity[name]
            delta = anchor - mean
            velocity.mul_(momentum).add_(delta)
            anchor.sub_(delta.add_(velocity, alpha=momentum), alpha=lr)
            mean.copy_(anchor)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return anchor and velocity."""
        return {"anchor": self.anchor, "velocity": self.velocity}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore anchor and velocity."""
        device = next((tensor.device for tensor in self.anchor.values()), None)
        for name in ("anchor", "velocity"):
            loaded = {key: value.to(device) for key, value in state[name].items()}
            setattr(self, name, loaded)
