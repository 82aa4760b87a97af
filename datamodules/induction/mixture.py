"""Gaussian sequences whose target combines a 4-gram and an induction head."""

import torch
from torch import Tensor

from lightning_plugins.datamodules.generated import GeneratedDataModule
from lightning_plugins.nn.induction import bilinear, four_gram, in_context_n_gram


class InductionMixtureDataModule(GeneratedDataModule):
    """Standard normal tokens and the mixed target of Wang et al. (arXiv 2410.11474).

    Batches are ``(tokens, target)``: float32 ``(batch, length, dim)``, and ``(batch, 2, dim)`` with
    the 4-gram part ``α/(1+α)·x_{L-2}`` and the induction part ``1/(1+α)·IH_n(x)``. ``IH_n`` matches
    patches with ``W*``: ``w*²`` times the identity for scalar tokens, otherwise ``w*²`` times a
    rotation drawn with the seed. Every training batch is new.

    Args:
        length: Tokens per sequence, ``L``; at least 4, and at least ``n + 1``.
        alpha: Weight of the 4-gram relative to the induction part, > 0.
        w_star: ``w*``, > 0. The reference dynamics exist below 0.841.
        dim: Dimension of a token.
        n: Order of ``IH_n``: ``n - 1`` tokens are matched and the next one is read.
        batch_size: Sequences per batch on each rank.
        steps_per_epoch: Training batches per rank in one epoch.
        eval_batches: Batches of the validation part, and of the test part.
        seed: Seed of all data and of the rotation.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        length: int = 40,
        alpha: float = 1.0,
        w_star: float = 0.49,
        dim: int = 1,
        n: int = 2,
        batch_size: int = 512,
        steps_per_epoch: int = 1000,
        eval_batches: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, steps_per_epoch, eval_batches, seed)
        if n < 2:
            raise ValueError(f"n={n}: expected at least 2")
        if dim < 1:
            raise ValueError(f"dim={dim}: expected at least 1")
        shortest = max(4, n + 1)
        if length < shortest:
            raise ValueError(f"length={length}: expected at least {shortest} tokens for n={n}")
        for name, value in {"alpha": alpha, "w_star": w_star}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}={value}: expected a number above 0")
        self.length = length
        self.alpha = alpha
        self.w_star = w_star
        self.dim = dim
        self.n = n
        self.similarity_weight = w_star**2 * _rotation((n - 1) * dim, seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Generate a batch with torch's global generator."""
        tokens = torch.randn(self.batch_size, self.length, self.dim)
        return tokens, self.target(tokens)

    def target(self, tokens: Tensor) -> Tensor:
        """Compute the two parts ``(batch, 2, dim)`` for tokens ``(batch, length, dim)``."""
        induction = in_context_n_gram(tokens, bilinear(self.similarity_weight), self.n)
        parts = torch.stack([self.alpha * four_gram(tokens), induction], dim=1)
        return parts / (1 + self.alpha)


def _rotation(size: int, seed: int) -> Tensor:
    """Draw an orthogonal matrix uniformly; return the number 1 for size 1."""
    if size == 1:
        return torch.ones(1, 1)
    gaussian = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()
