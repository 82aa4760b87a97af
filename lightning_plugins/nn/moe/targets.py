"""Target functions with known pieces for mixtures of experts."""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

TargetName = Literal[
    "smooth", "sine_cosine", "bumps", "bump_product", "jumps", "shells", "checkerboard"
]
ON_CUBES = ("bumps", "bump_product", "jumps", "shells", "checkerboard")
_TARGETS = ("smooth", "sine_cosine", *ON_CUBES)


class Target(Protocol):
    """A function on points ``(points, features)`` of a manifold in its natural coordinates."""

    out_features: int

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, out_features)``."""

    def regions(self, points: Tensor) -> Tensor | None:
        """Return the piece of each point, int64 ``(points,)``, or None if there are no pieces."""


def build_target(name: TargetName, features: int, pieces: int, generator: Generator) -> Target:
    """Build a target by name for points with ``features`` natural coordinates.

    ========================  ======================================================================
    ``smooth``                :class:`Smooth`, random, equally smooth in every dimension
    ``sine_cosine``           :class:`SineCosine`, the paper's first experiment
    ``bumps``                 :class:`Bumps`, the paper's second experiment; continuous, separable
    ``bump_product``          :class:`BumpProduct`, continuous and not separable
    ``jumps``                 one affine function in each cell of a grid, a power diagram
    ``shells``                one affine function in each concentric shell, not a power diagram
    ``checkerboard``          two affine functions on the squares of a checkerboard
    ========================  ======================================================================

    Args:
        name: One of the names above.
        features: Natural coordinates of a point.
        pieces: Number of intervals along each axis of the cube, or of shells.
        generator: Random generator of the target.

    Raises:
        ValueError: The name is unknown, ``pieces`` is below 1, or there are too few coordinates.
    """
    if name not in _TARGETS:
        raise ValueError(f"target={name!r}: expected {', '.join(map(repr, _TARGETS))}")
    if pieces < 1:
        raise ValueError(f"pieces={pieces}: expected at least 1")
    if name == "smooth":
        return Smooth(features, generator)
    if name == "sine_cosine":
        if features < 2:
            raise ValueError("target='sine_cosine' requires points with at least 2 coordinates")
        return SineCosine()
    if name == "bumps":
        return Bumps(pieces, features)
    if name == "bump_product":
        return BumpProduct(pieces, features)
    partition, number = {
        "jumps": (cells, pieces**features),
        "shells": (shells, pieces),
        "checkerboard": (checkerboard, 2),
    }[name]
    return PiecewiseAffine(partition, pieces, features, number, generator)


class Smooth:
    """A random smooth function: a Gaussian process with mean 0, variance 1 and a Gaussian kernel.

    ``f(x) = sqrt(2 / 256) sum_k cos(w_k . x + b_k)`` with normal w of standard deviation 2. Values
    at a distance of 1/2 have the correlation exp(-1/2). Kernel and smoothness are the same in every
    dimension.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines, 2007, algorithm 1.
    """

    out_features = 1

    def __init__(self, features: int, generator: Generator) -> None:
        self.frequencies = 2 * torch.randn(features, 256, generator=generator)
        self.phases = 2 * math.pi * torch.rand(256, generator=generator)

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, 1)``."""
        waves = (points @ self.frequencies + self.phases).cos()
        return waves.sum(dim=1, keepdim=True) * math.sqrt(2 / 256)

    def regions(self, points: Tensor) -> None:
        """Return None; there are no pieces."""


class SineCosine:
    """The function ``sin(5 x_1) + cos(3 x_2)`` of the first two coordinates.

    Source: Wang and E, arXiv 2505.24205, section 6, on the unit circle.
    """

    out_features = 1

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, 1)``."""
        return (5 * points[:, :1]).sin() + (3 * points[:, 1:2]).cos()

    def regions(self, points: Tensor) -> None:
        """Return None; there are no pieces."""


class Bumps:
    """Bumps ``f_l(x) = i (x_l - i + 1)^2 (x_l - i)^2`` for x_l in [i - 1, i].

    The domain is ``[0, pieces]^axes``, with one output per axis. The function and its first
    derivative are continuous; the second derivative jumps.

    Source: Wang and E, arXiv 2505.24205, figure 3, the same for each axis.

    Args:
        pieces: Number of intervals along each axis.
        axes: Number of coordinates.
    """

    def __init__(self, pieces: int, axes: int) -> None:
        self.pieces = pieces
        self.out_features = self.axes = axes

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, axes)``."""
        return self.piece(0, intervals(points, self.pieces) + 1, points)

    def piece(self, axis: int, index: Tensor | int, z: Tensor) -> Tensor:
        """Evaluate the function of the interval ``index - 1 <= z <= index`` at any z."""
        return index * (index - 1 - z).square() * (z - index).square()

    def regions(self, points: Tensor) -> Tensor:
        """Return the cell of each point."""
        return cells(points, self.pieces)


class BumpProduct:
    """The product ``prod_l (1 + f_l(x_l))`` of :class:`Bumps` f: one output, not separable."""

    out_features = 1

    def __init__(self, pieces: int, axes: int) -> None:
        self.bumps = Bumps(pieces, axes)

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, 1)``."""
        return (1 + self.bumps(points)).prod(dim=1, keepdim=True)

    def regions(self, points: Tensor) -> Tensor:
        """Return the cell of each point."""
        return self.bumps.regions(points)


class PiecewiseAffine:
    """A random affine function in each region of the cube ``[0, pieces]^features``.

    ``f(x) = a_r . (x - c) / s + b_r`` with normal a and b, the centre c and half the side length s.
    """

    out_features = 1

    def __init__(
        self,
        partition: Callable[[Tensor, int], Tensor],
        pieces: int,
        features: int,
        num_regions: int,
        generator: Generator,
    ) -> None:
        self.partition = partition
        self.pieces = pieces
        self.slopes = torch.randn(num_regions, features, generator=generator)
        self.offsets = torch.randn(num_regions, 1, generator=generator)

    def __call__(self, points: Tensor) -> Tensor:
        """Compute values ``(points, 1)``."""
        region = self.regions(points)
        centred = points / (self.pieces / 2) - 1
        return (self.slopes[region] * centred).sum(dim=1, keepdim=True) + self.offsets[region]

    def regions(self, points: Tensor) -> Tensor:
        """Return the region of each point."""
        return self.partition(points, self.pieces)


def intervals(points: Tensor, pieces: int) -> Tensor:
    """Return the unit interval of each coordinate, from 0, as int64 in the shape of ``points``."""
    return points.floor().long().clamp(0, pieces - 1)


def cells(points: Tensor, pieces: int) -> Tensor:
    """Return the unit cell of each point, one of ``pieces^features``."""
    place_values = pieces ** torch.arange(points.shape[1])
    return (intervals(points, pieces) * place_values).sum(dim=1)


def shells(points: Tensor, pieces: int) -> Tensor:
    """Return the shell of each point; shells in the inscribed ball have equal volume.

    The corners of the cube belong to the last shell.
    """
    distance = (points / (pieces / 2) - 1).norm(dim=1)
    return (pieces * distance ** points.shape[1]).floor().long().clamp(max=pieces - 1)


def checkerboard(points: Tensor, pieces: int) -> Tensor:
    """Return the colour, 0 or 1, of the unit square of each point."""
    return intervals(points, pieces).sum(dim=1) % 2
