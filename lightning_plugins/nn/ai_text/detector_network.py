"""An encoder, what makes its representations robust, and a classifier of the whole text."""

from typing import Literal, NamedTuple

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


class Output(NamedTuple):
    """What a :class:`DetectorNetwork` gives.

    Attributes:
        logits: ``(batch, 2)``: human, AI.
        reconstruction_loss: mean over tokens; None without a reconstruction network.
    """

    logits: Tensor
    reconstruction_loss: Tensor | None


class MaxPoolHead(nn.Module):
    """The largest value of each feature over the text, then two layers: logits ``(batch, 2)``.

    Args:
        hidden_size: features of a token.
        dropout: before each layer, in [0, 1).
    """

    def __init__(self, hidden_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, 2)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of ``tokens`` ``(batch, length, hidden_size)`` where ``mask`` is not zero."""
        if mask is not None:
            tokens = tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf"))
        pooled = self.dense(self.dropout(tokens.amax(dim=1))).tanh()
        return self.output(self.dropout(pooled))


class DetectorNetwork(nn.Module):
    """Encoder, reconstruction where there is one, and head.

    Args:
        encoder: gives ``last_hidden_state`` of ``input_ids`` and ``attention_mask``, as those of
            transformers do.
        hidden_size: of the encoder.
        reconstruction: between encoder and head; None leaves it out.
        dropout: of the head.
        mask_padding: pool and reconstruct real tokens only. False is what the code released with
            arXiv 2406.01179 does, where the score of a text depends on the texts beside it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        hidden_size: int,
        reconstruction: ReconstructionNetwork | None = None,
        dropout: float = 0.1,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.reconstruction = reconstruction
        self.head = MaxPoolHead(hidden_size, dropout)
        self.mask_padding = mask_padding

    @property
    def noise_dim(self) -> int | None:
        """Numbers of noise a token takes; None for a network that takes none."""
        return None if self.reconstruction is None else self.reconstruction.noise_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor, epsilon: Tensor | None) -> Output:
        """Logits of a batch.

        Args:
            input_ids: ``(batch, length)``.
            attention_mask: ``(batch, length)``, 1 at tokens and 0 at padding.
            epsilon: noise ``(batch, length, noise_dim)``; None for none.
        """
        return self.classify(self.encode(input_ids, attention_mask), attention_mask, epsilon)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Representations ``(batch, length, hidden_size)``, in which there is no noise yet."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def classify(self, hidden: Tensor, attention_mask: Tensor, epsilon: Tensor | None) -> Output:
        """Logits of representations; many draws of the noise need one :meth:`encode`."""
        mask = attention_mask if self.mask_padding else None
        if self.reconstruction is None:
            return Output(self.head(hidden, mask), None)
        hidden, losses = self.reconstruction(hidden, epsilon)
        everywhere = torch.ones_like(attention_mask)
        loss = masked_mean(losses, everywhere if mask is None else mask)
        return Output(self.head(hidden, mask), loss)
