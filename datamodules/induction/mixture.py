"""Gaussian sequences whose target is part 4-gram, part induction head."""

import torch
from torch import Tensor

from lightning_plugins.datamodules.generated import FreshDataModule
from lightning_plugins.nn.induction import bilinear, four_gram, in_context_n_gram


class InductionMixtureDataModule(FreshDataModule):
    """Standard normal tokens and the mixed target of Wang et al. (arXiv 2410.11474).

    Batches are ``(tokens, target)``: float32 ``(batch, length, dim)``, and ``(batch, 2, dim)`` with
    the 4-gram part ``α/(1+α)·x_{L-2}`` and the induction part ``1/(1+α)·IH_n(x)``. ``IH_n`` matches
    patches by ``W*``: ``w*²`` times the identity for scalar tokens, else times a rotation that the
    seed chooses. Every training batch is new.

    Args:
        length: tokens a sequence, ``L``; at least 4, and at least ``n + 1``.
        alpha: weight of the 4-gram against the induction part, > 0.
        w_star: ``w*``, > 0. The reference dynamics exist below 0.841.
        dim: of a token.
        n: of ``IH_n``: tokens that count in a match, the one that is read included.
        batch_size: sequences a batch on each rank.
        steps_per_epoch: training batches in what Lightning calls an epoch.
        eval_batches: batches of validation, and of test.
        seed: of all data, and of the rotation.

    Raises:
        ValueError: an argument outside its range.
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
        """A batch, from torch's global generator."""
        tokens = torch.randn(self.batch_size, self.length, self.dim)
        return tokens, self.target(tokens)

    def target(self, tokens: Tensor) -> Tensor:
        """The two parts ``(batch, 2, dim)`` of tokens ``(batch, length, dim)``."""
        induction = in_context_n_gram(tokens, bilinear(self.similarity_weight), self.n)
        parts = torch.stack([self.alpha * four_gram(tokens), induction], dim=1)
        return parts / (1 + self.alpha)


def _rotation(size: int, seed: int) -> Tensor:
    """A uniformly drawn orthogonal matrix; the number 1 for scalars."""
    if size == 1:
        return torch.ones(1, 1)
    gaussian = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal().sign()
