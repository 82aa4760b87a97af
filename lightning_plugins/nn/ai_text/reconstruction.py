"""A variational auto-encoder of every token's representation."""

from typing import Literal

import torch
from torch import Tensor, nn

Noise = Literal["scalar", "vector"]


class ReconstructionNetwork(nn.Module):
    r"""Encodes each token as a Gaussian and decodes a sample of it, with one variance a token.

    Of a representation ``h`` of ``hidden_size`` numbers, :math:`s = \max(0, W_1 h + b_1)`, the mean
    is :math:`\mu = W_m s + b_m` of ``latent_dim`` numbers, the log-variance :math:`v = w_v s + b_v`
    one number, the sample :math:`z = \mu + \epsilon e^{v/2}`, and the reconstruction
    :math:`h' = W_3 \max(0, W_2 z + b_2) + b_3`. The loss of a token is

    .. math:: \frac1d \|h' - h\|^2 + \beta\,\Big(\frac1{\dim z}\|\mu\|^2 + e^v - v\Big),

    whose second part is twice the Kullback-Leibler divergence to a standard Gaussian, for each
    latent dimension, plus one. No gradient is stopped at ``h``.

    Source: SCRN, arXiv 2406.01179. The released code draws one :math:`\epsilon` a token and adds it
    to all latent dimensions, which is ``noise="scalar"``.

    Args:
        hidden_size: of the encoder's representations.
        latent_dim: of ``mu`` and ``z``.
        width: of the hidden layers.
        beta: weight of the divergence.
        noise: ``scalar`` draws one number a token, ``vector`` one for each latent dimension.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        hidden_size: int,
        latent_dim: int = 512,
        width: int = 512,
        beta: float = 0.5,
        noise: Noise = "scalar",
    ) -> None:
        super().__init__()
        check_reconstruction(latent_dim, width, beta, noise)
        self.beta = beta
        self.noise_dim = 1 if noise == "scalar" else latent_dim
        self.squeeze = nn.Linear(hidden_size, width)
        self.mean = nn.Linear(width, latent_dim)
        self.log_variance = nn.Linear(width, 1)
        self.expand = nn.Linear(latent_dim, width)
        self.restore = nn.Linear(width, hidden_size)

    def forward(self, hidden: Tensor, epsilon: Tensor | None) -> tuple[Tensor, Tensor]:
        """Reconstructions, and the loss of each token.

        Args:
            hidden: ``(batch, length, hidden_size)``.
            epsilon: standard Gaussian ``(batch, length, noise_dim)``; None decodes the mean.

        Returns:
            ``(batch, length, hidden_size)`` and ``(batch, length)``.
        """
        squeezed = self.squeeze(hidden).relu()
        mean, log_variance = self.mean(squeezed), self.log_variance(squeezed)
        latent = mean if epsilon is None else mean + epsilon.to(mean) * (0.5 * log_variance).exp()
        restored = self.restore(self.expand(latent).relu())
        error = (restored - hidden).square().mean(dim=-1)
        divergence = mean.square().mean(dim=-1) + (log_variance.exp() - log_variance).squeeze(-1)
        return restored, error + self.beta * divergence


def check_reconstruction(latent_dim: int, width: int, beta: float, noise: str) -> None:
    """Refuse arguments of a :class:`ReconstructionNetwork` outside their range.

    Raises:
        ValueError: one of them is.
    """
    for name, value in {"latent_dim": latent_dim, "width": width}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if not beta >= 0:
        raise ValueError(f"beta={beta}: expected at least 0")
    if noise not in ("scalar", "vector"):
        raise ValueError(f"noise={noise!r}: expected 'scalar' or 'vector'")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` ``(batch, length)`` where ``mask`` is not zero."""
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values, 0).sum() / mask.sum()
