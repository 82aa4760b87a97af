"""Functions with known pieces, for mixtures of experts to represent or to learn."""

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
        """Values ``(points, out_features)``."""

    def regions(self, points: Tensor) -> Tensor | None:
        """The piece of each point, int64 ``(points,)``; None for a function without pieces."""


def build_target(name: TargetName, features: int, pieces: int, generator: Generator) -> Target:
    """The target of that name on points with ``features`` natural coordinates.

    ========================  ======================================================================
    ``smooth``                :class:`Smooth`, a random function of one smoothness in any dimension
    ``sine_cosine``           :class:`SineCosine`, the paper's first experiment
    ``bumps``                 :class:`Bumps`, the paper's second experiment; continuous, separable
    ``bump_product``          :class:`BumpProduct`, continuous and not separable
    ``jumps``                 another affine function in each cell of a grid: a power diagram
    ``shells``                the same in concentric shells, which no power diagram is
    ``checkerboard``          two affine functions on the squares of a checkerboard
    ========================  ======================================================================

    Args:
        name: as above.
        features: natural coordinates of a point.
        pieces: intervals along each axis of the cube, or shells.
        generator: of what is random in the target.

    Raises:
        ValueError: an unknown name, fewer pieces than 1, or too few coordinates.
    """
    if name not in _TARGETS:
        raise ValueError(f"target={name!r}: expected {', '.join(map(repr, _TARGETS))}")
    if pieces < 1:
        raise ValueError(f"pieces={pieces}: expected at least 1")
    if name == "smooth":
        return Smooth(features, generator)
    if name == "sine_cosine":
        if features < 2:
            raise ValueError("target='sine_cosine' needs points with at least 2 coordinates")
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
    """A random smooth function: a Gaussian process of mean 0, variance 1 and a Gaussian kernel.

    ``f(x) = sqrt(2 / 256) sum_k cos(w_k . x + b_k)`` with w normal of standard deviation 2, so that
    values half a unit apart are correlated by exp(-1/2). The kernel, and with it the smoothness, is
    the same in every dimension.

    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines, 2007, algorithm 1.
    """

    out_features = 1

    def __init__(self, features: int, generator: Generator) -> None:
        self.frequencies = 2 * torch.randn(features, 256, generator=generator)
        self.phases = 2 * math.pi * torch.rand(256, generator=generator)

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(points, 1)``."""
        waves = (points @ self.frequencies + self.phases).cos()
        return waves.sum(dim=1, keepdim=True) * math.sqrt(2 / 256)

    def regions(self, points: Tensor) -> None:
        """There are none."""


class SineCosine:
    """``sin(5 x_1) + cos(3 x_2)`` of the first two coordinates.

    Source: Wang and E, arXiv 2505.24205, section 6, on the unit circle.
    """

    out_features = 1

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(points, 1)``."""
        return (5 * points[:, :1]).sin() + (3 * points[:, 1:2]).cos()

    def regions(self, points: Tensor) -> None:
        """There are none."""


class Bumps:
    """``f_l(x) = i (x_l - i + 1)^2 (x_l - i)^2`` for x_l in [i - 1, i], on ``[0, pieces]^axes``.

    One output an axis. Function and slope are continuous, the second derivative jumps.

    Source: Wang and E, arXiv 2505.24205, figure 3, for each axis alike.

    Args:
        pieces: intervals along each axis.
        axes: coordinates.
    """

    def __init__(self, pieces: int, axes: int) -> None:
        self.pieces = pieces
        self.out_features = self.axes = axes

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(points, axes)``."""
        return self.piece(0, intervals(points, self.pieces) + 1, points)

    def piece(self, axis: int, index: Tensor | int, z: Tensor) -> Tensor:
        """The function that holds for ``index - 1 <= z <= index`` along an axis, anywhere."""
        return index * (index - 1 - z).square() * (z - index).square()

    def regions(self, points: Tensor) -> Tensor:
        """The cell of each point."""
        return cells(points, self.pieces)


class BumpProduct:
    """``prod_l (1 + f_l(x_l))`` with the f of :class:`Bumps`; one output, and not separable."""

    out_features = 1

    def __init__(self, pieces: int, axes: int) -> None:
        self.bumps = Bumps(pieces, axes)

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(points, 1)``."""
        return (1 + self.bumps(points)).prod(dim=1, keepdim=True)

    def regions(self, points: Tensor) -> Tensor:
        """The cell of each point."""
        return self.bumps.regions(points)


class PiecewiseAffine:
    """A random affine function in each region of the cube ``[0, pieces]^features``.

    ``f(x) = a_r . (x - c) / s + b_r`` with normal a and b, c the centre and s half the side.
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
        """Values ``(points, 1)``."""
        region = self.regions(points)
        centred = points / (self.pieces / 2) - 1
        return (self.slopes[region] * centred).sum(dim=1, keepdim=True) + self.offsets[region]

    def regions(self, points: Tensor) -> Tensor:
        """The region of each point."""
        return self.partition(points, self.pieces)


def intervals(points: Tensor, pieces: int) -> Tensor:
    """Which unit interval each coordinate lies in, from 0: int64, of the shape of ``points``."""
    return points.floor().long().clamp(0, pieces - 1)


def cells(points: Tensor, pieces: int) -> Tensor:
    """Which of the ``pieces^features`` unit cells each point lies in."""
    place_values = pieces ** torch.arange(points.shape[1])
    return (intervals(points, pieces) * place_values).sum(dim=1)


def shells(points: Tensor, pieces: int) -> Tensor:
    """Which shell around the centre: those in the inscribed ball are equally large.

    The corners of the cube belong to the last one.
    """
    distance = (points / (pieces / 2) - 1).norm(dim=1)
    return (pieces * distance ** points.shape[1]).floor().long().clamp(max=pieces - 1)


def checkerboard(points: Tensor, pieces: int) -> Tensor:
    """The colour, 0 or 1, of the unit square that each point lies in."""
    return intervals(points, pieces).sum(dim=1) % 2
