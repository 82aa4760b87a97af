"""Compact manifolds, and embeddings of their points into spaces of more dimensions."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

ManifoldName = Literal["circle", "torus", "sphere", "swiss_roll", "cube"]
_MANIFOLDS = ("circle", "torus", "sphere", "swiss_roll", "cube")
_TURN = 2 * math.pi


class Manifold(Protocol):
    """A manifold that points can be drawn from.

    Natural coordinates are those of the smallest Euclidean space that contains the manifold.
    """

    @property
    def features(self) -> int:
        """Number of natural coordinates of a point."""

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Draw points ``(number, features)``; None uses torch's global generator."""

    def chart(self, points: Tensor) -> Tensor:
        """Return two coordinates ``(points, 2)`` for plots."""


def build_manifold(name: ManifoldName, intrinsic_dim: int, side: float) -> Manifold:
    """Build a manifold by name.

    ``circle`` is the unit circle, ``torus`` the product of ``intrinsic_dim`` of them, ``sphere``
    the unit sphere, ``swiss_roll`` a rolled rectangle, ``cube`` is ``[0, side]^intrinsic_dim``.

    Raises:
        ValueError: The name is unknown, or the manifold does not exist in this dimension.
    """
    if name not in _MANIFOLDS:
        raise ValueError(f"manifold={name!r}: expected {', '.join(map(repr, _MANIFOLDS))}")
    if intrinsic_dim < 1:
        raise ValueError(f"intrinsic_dim={intrinsic_dim}: expected at least 1")
    fixed = {"circle": 1, "swiss_roll": 2}.get(name)
    if fixed is not None and intrinsic_dim != fixed:
        raise ValueError(
            f"intrinsic_dim={intrinsic_dim}: manifold={name!r} requires intrinsic_dim={fixed}"
        )
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
        """Two coordinates per angle."""
        return 2 * self.dimension

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Draw uniform points."""
        angles = _TURN * torch.rand(number, self.dimension, generator=generator)
        return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)

    def chart(self, points: Tensor) -> Tensor:
        """Return the points of a circle, or the first two angles."""
        if self.dimension == 1:
            return points
        return torch.atan2(points[:, 1:4:2], points[:, 0:4:2])


@dataclass(frozen=True)
class Sphere:
    """The unit sphere, with uniform points."""

    dimension: int

    @property
    def features(self) -> int:
        """One coordinate more than the dimension."""
        return self.dimension + 1

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Draw uniform points."""
        normal = torch.randn(number, self.features, generator=generator)
        return torch.nn.functional.normalize(normal, dim=1)

    def chart(self, points: Tensor) -> Tensor:
        """Return longitude and height."""
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
        """Draw points that are uniform in (t, h)."""
        t, h = torch.rand(number, 2, generator=generator).unbind(1)
        radius = (1 + 2 * t) / 3
        angle = 2.25 * _TURN * radius
        return torch.stack([radius * angle.cos(), h, radius * angle.sin()], dim=1)

    def chart(self, points: Tensor) -> Tensor:
        """Return the coordinates (t, h) of the unrolled rectangle."""
        radius = points[:, ::2].norm(dim=1)
        return torch.stack([2.25 * _TURN * radius, points[:, 1]], dim=1)


@dataclass(frozen=True)
class Cube:
    """The cube ``[0, side]^dimension``, with uniform points."""

    dimension: int
    side: float

    @property
    def features(self) -> int:
        """One coordinate per dimension."""
        return self.dimension

    def sample(self, number: int, generator: Generator | None = None) -> Tensor:
        """Draw uniform points."""
        return self.side * torch.rand(number, self.dimension, generator=generator)

    def chart(self, points: Tensor) -> Tensor:
        """Return the first two coordinates; a single coordinate is followed by zero."""
        return torch.nn.functional.pad(points[:, :2], (0, max(0, 2 - self.dimension)))


EmbeddingName = Literal["zero_pad", "rotated", "nonlinear"]
_EMBEDDINGS = ("zero_pad", "rotated", "nonlinear")


class Embedding:
    """A smooth injective map from ``features`` to ``ambient_dim`` coordinates.

    * ``zero_pad``: appends zeros, as in the paper's experiments. Zero padding carries no
      information, so a network's error is independent of the number of zeros by construction.
    * ``rotated``: appends zeros and applies a random rotation. Every coordinate carries
      information, but all points lie in a subspace of ``features`` dimensions.
    * ``nonlinear``: ``(x, cos(w_j . x), sin(w_j . x), ...)`` with random normal w_j, all waves
      together scaled to norm 1, followed by a random rotation. The manifold spans the whole space,
      except for one coordinate if ``ambient_dim - features`` is odd.

    Args:
        name: One of the names above.
        features: Number of natural coordinates.
        ambient_dim: Dimension of the space.
        generator: Random generator of rotation and frequencies.

    Raises:
        ValueError: The name is unknown, or the space is too small.
    """

    def __init__(
        self, name: EmbeddingName, features: int, ambient_dim: int, generator: Generator
    ) -> None:
        if name not in _EMBEDDINGS:
            raise ValueError(f"embedding={name!r}: expected {', '.join(map(repr, _EMBEDDINGS))}")
        least = features + 2 if name == "nonlinear" else features
        if ambient_dim < least:
            raise ValueError(
                f"ambient_dim={ambient_dim}: embedding={name!r} of {features} natural coordinates "
                f"requires at least {least}"
            )
        self.features = features
        self.ambient_dim = ambient_dim
        self.frequencies: Tensor | None = None
        self.rotation: Tensor | None = None
        if name == "nonlinear":
            waves = (ambient_dim - features) // 2
            self.frequencies = torch.randn(features, waves, generator=generator)
        if name != "zero_pad":
            normal = torch.randn(ambient_dim, ambient_dim, generator=generator, dtype=torch.float64)
            self.rotation = torch.linalg.qr(normal).Q.float()

    def __call__(self, points: Tensor) -> Tensor:
        """Embed points ``(points, features)`` as ``(points, ambient_dim)``."""
        if self.frequencies is not None:
            phases = points @ self.frequencies
            scale = phases.shape[1] ** -0.5
            points = torch.cat([points, scale * phases.cos(), scale * phases.sin()], dim=1)
        points = pad(points, (0, self.ambient_dim - points.shape[1]))
        return points if self.rotation is None else points @ self.rotation.T

    def natural(self, inputs: Tensor) -> Tensor:
        """Recover the natural coordinates ``(inputs, features)`` of embedded points."""
        if self.rotation is not None:
            inputs = inputs @ self.rotation.to(inputs)
        return inputs[:, : self.features]
