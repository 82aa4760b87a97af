"""Compact manifolds: points drawn from each, in natural coordinates."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

ManifoldName = Literal["circle", "torus", "sphere", "swiss_roll", "cube"]
_MANIFOLDS = ("circle", "torus", "sphere", "swiss_roll", "cube")
_TURN = 2 * math.pi


class Manifold(Protocol):
    """What points are drawn from.

    Attributes:
        features: natural coordinates of a point, those of the smallest space it lies in.
    """

    @property
    def features(self) -> int:
        """Natural coordinates of a point."""

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Points ``(number, features)``; None draws from torch's global generator."""

    def chart(self, points: Tensor) -> Tensor:
        """Two coordinates ``(points, 2)`` by which a picture shows them."""


def build_manifold(name: ManifoldName, intrinsic_dim: int, side: float) -> Manifold:
    """The manifold of that name.

    ``circle`` is the unit circle, ``torus`` the product of ``intrinsic_dim`` of them, ``sphere``
    the unit sphere, ``swiss_roll`` a rolled rectangle, ``cube`` is ``[0, side]^intrinsic_dim``.

    Raises:
        ValueError: an unknown name, or a dimension that the manifold does not have.
    """
    if name not in _MANIFOLDS:
        raise ValueError(f"manifold={name!r}: expected {', '.join(map(repr, _MANIFOLDS))}")
    if intrinsic_dim < 1:
        raise ValueError(f"intrinsic_dim={intrinsic_dim}: expected at least 1")
    fixed = {"circle": 1, "swiss_roll": 2}.get(name)
    if fixed is not None and intrinsic_dim != fixed:
        raise ValueError(f"intrinsic_dim={intrinsic_dim}: manifold={name!r} has {fixed}")
    if name == "sphere":
        return Sphere(intrinsic_dim)
    if name == "swiss_roll":
        return SwissRoll()
    if name == "cube":
        return Cube(intrinsic_dim, side)
    return Torus(intrinsic_dim)


@dataclass(frozen=True)
class Torus:
    """Product of unit circles ``(cos u_1, sin u_1, cos u_2, ...)``, angles uniform."""

    dimension: int

    @property
    def features(self) -> int:
        """Two an angle."""
        return 2 * self.dimension

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Uniform points."""
        angles = _TURN * torch.rand(number, self.dimension, generator=generator)
        return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)

    def chart(self, points: Tensor) -> Tensor:
        """The circle itself, or two angles."""
        if self.dimension == 1:
            return points
        return torch.atan2(points[:, 1:4:2], points[:, 0:4:2])


@dataclass(frozen=True)
class Sphere:
    """The unit sphere of a dimension, points uniform."""

    dimension: int

    @property
    def features(self) -> int:
        """One more than the dimension."""
        return self.dimension + 1

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Uniform points."""
        normal = torch.randn(number, self.features, generator=generator)
        return torch.nn.functional.normalize(normal, dim=1)

    def chart(self, points: Tensor) -> Tensor:
        """Longitude and height."""
        if self.dimension == 1:
            return points
        return torch.stack([torch.atan2(points[:, 1], points[:, 0]), points[:, 2]], dim=1)


@dataclass(frozen=True)
class SwissRoll:
    """``(t cos t, h, t sin t) / r`` with t uniform from 1.5 to 4.5 pi, r = 4.5 pi, h / r in [0, 1].

    Source: Marsland, Machine Learning: An Algorithmic Perspective, 2009, section 6.5.
    """

    features = 3

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Points uniform in (t, h)."""
        t, h = torch.rand(number, 2, generator=generator).unbind(1)
        radius = (1 + 2 * t) / 3
        angle = 2.25 * _TURN * radius
        return torch.stack([radius * angle.cos(), h, radius * angle.sin()], dim=1)

    def chart(self, points: Tensor) -> Tensor:
        """The unrolled rectangle, (t, h)."""
        radius = points[:, ::2].norm(dim=1)
        return torch.stack([2.25 * _TURN * radius, points[:, 1]], dim=1)


@dataclass(frozen=True)
class Cube:
    """``[0, side]^dimension``, points uniform."""

    dimension: int
    side: float

    @property
    def features(self) -> int:
        """The dimension."""
        return self.dimension

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Uniform points."""
        return self.side * torch.rand(number, self.dimension, generator=generator)

    def chart(self, points: Tensor) -> Tensor:
        """The first two coordinates, or the only one and zero."""
        return torch.nn.functional.pad(points[:, :2], (0, max(0, 2 - self.dimension)))
