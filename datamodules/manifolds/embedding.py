"""From natural coordinates into a space of more dimensions."""

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

EmbeddingName = Literal["zero_pad", "rotated", "nonlinear"]
_EMBEDDINGS = ("zero_pad", "rotated", "nonlinear")


class Embedding:
    """A smooth injective map from ``features`` to ``ambient_dim`` coordinates.

    * ``zero_pad``: zeros behind the coordinates, as in the paper's experiments. To no network do
      they carry anything, so that its error does not depend on their number by construction.
    * ``rotated``: the same, turned by a random orthogonal matrix: every coordinate carries
      something, but all lie in a subspace of ``features`` dimensions.
    * ``nonlinear``: ``(x, cos(w_j . x), sin(w_j . x), ...)`` with random normal w_j and the waves
      scaled to norm 1 together, then turned: the manifold spans the whole space (but for one
      coordinate where an odd number is left over).

    Args:
        name: as above.
        features: natural coordinates.
        ambient_dim: dimensions of the space.
        generator: of matrix and frequencies.

    Raises:
        ValueError: an unknown name, or a space that is too small.
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
                f"needs at least {least}"
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
        """Points ``(points, features)`` as ``(points, ambient_dim)``."""
        if self.frequencies is not None:
            phases = points @ self.frequencies
            scale = phases.shape[1] ** -0.5
            points = torch.cat([points, scale * phases.cos(), scale * phases.sin()], dim=1)
        points = pad(points, (0, self.ambient_dim - points.shape[1]))
        return points if self.rotation is None else points @ self.rotation.T

    def natural(self, inputs: Tensor) -> Tensor:
        """The natural coordinates ``(inputs, features)`` of what was embedded."""
        if self.rotation is not None:
            inputs = inputs @ self.rotation.to(inputs)
        return inputs[:, : self.features]
