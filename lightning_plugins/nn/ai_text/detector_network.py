"""The network of a detector: encoder, reconstruction network and classification head."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Noise = Literal["scalar", "vector"]


class ReconstructionNetwork(nn.Module):
    r"""A variational auto-encoder of the representation of each token, with one variance per token.

    For a representation ``h`` of ``hidden_size`` numbers, :math:`s = \max(0, W_1 h + b_1)`; the
    mean :math:`\mu = W_m s + b_m` has ``latent_dim`` numbers and the log-variance
    :math:`v = w_v s + b_v` one; the sample is :math:`z = \mu + \epsilon e^{v/2}`, and the
    reconstruction :math:`h' = W_3 \max(0, W_2 z + b_2) + b_3`. The loss of a token is

    .. math:: \frac1d \|h' - h\|^2 + \beta\,\Big(\frac1{\dim z}\|\mu\|^2 + e^v - v\Big).

    The bracket is twice the Kullback-Leibler divergence to a standard Gaussian per latent
    dimension, plus one. Gradients also flow to ``h``.

    Source: SCRN, arXiv 2406.01179. The released code draws one :math:`\epsilon` per token and adds
    it to all latent dimensions (``noise="scalar"``).

    Args:
        hidden_size: Size of the encoder's representations.
        latent_dim: Size of ``mu`` and ``z``.
        width: Size of the hidden layers.
        beta: Weight of the divergence.
        noise: ``scalar`` draws one number per token, ``vector`` one per latent dimension.

    Raises:
        ValueError: An argument is outside its range.
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
        """Reconstruct each token and compute its loss.

        Args:
            hidden: ``(batch, length, hidden_size)``.
            epsilon: Standard Gaussian noise ``(batch, length, noise_dim)``; None decodes the mean.

        Returns:
            The reconstructions ``(batch, length, hidden_size)`` and losses ``(batch, length)``.
        """
        squeezed = self.squeeze(hidden).relu()
        mean, log_variance = self.mean(squeezed), self.log_variance(squeezed)
        latent = mean if epsilon is None else mean + epsilon.to(mean) * (0.5 * log_variance).exp()
        restored = self.restore(self.expand(latent).relu())
        error = (restored - hidden).square().mean(dim=-1)
        divergence = mean.square().mean(dim=-1) + (log_variance.exp() - log_variance).squeeze(-1)
        return restored, error + self.beta * divergence


def check_reconstruction(latent_dim: int, width: int, beta: float, noise: str) -> None:
    """Check the arguments of a :class:`ReconstructionNetwork`.

    Raises:
        ValueError: An argument is outside its range.
    """
    for name, value in {"latent_dim": latent_dim, "width": width}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if not beta >= 0:
        raise ValueError(f"beta={beta}: expected at least 0")
    if noise not in ("scalar", "vector"):
        raise ValueError(f"noise={noise!r}: expected 'scalar' or 'vector'")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` ``(batch, length)`` where ``mask`` is not zero."""
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values, 0).sum() / mask.sum()


class Output(NamedTuple):
    """The output of a :class:`DetectorNetwork`.

    Attributes:
        logits: ``(batch, 2)``: human, AI.
        reconstruction_loss: Mean over the tokens; None without a reconstruction network.
    """

    logits: Tensor
    reconstruction_loss: Tensor | None


class MaxPoolHead(nn.Module):
    """Max-pooling of each feature over the text, then two layers with logits ``(batch, 2)``.

    Args:
        hidden_size: Features of a token.
        dropout: Dropout probability before each layer, in [0, 1).
    """

    def __init__(self, hidden_size: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, 2)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return the logits of ``tokens`` ``(batch, length, hidden_size)`` under ``mask``."""
        if mask is not None:
            tokens = tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf"))
        pooled = self.dense(self.dropout(tokens.amax(dim=1))).tanh()
        return self.output(self.dropout(pooled))


class DetectorNetwork(nn.Module):
    """Encoder, optional reconstruction network, and head.

    Args:
        encoder: A module that returns ``last_hidden_state`` for ``input_ids`` and
            ``attention_mask``, like the encoders of transformers.
        hidden_size: Size of the encoder's representations.
        reconstruction: Network between encoder and head, or None.
        dropout: Dropout probability of the head.
        mask_padding: Exclude padding from pooling and reconstruction. The code released with
            arXiv 2406.01179 includes it (False), so that the score of a text depends on the other
            texts of its batch.
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
        """Noise numbers per token; None for a network without noise."""
        return None if self.reconstruction is None else self.reconstruction.noise_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor, epsilon: Tensor | None) -> Output:
        """Encode and classify a batch.

        Args:
            input_ids: ``(batch, length)``.
            attention_mask: ``(batch, length)``, 1 at tokens and 0 at padding.
            epsilon: Noise ``(batch, length, noise_dim)``, or None.
        """
        return self.classify(self.encode(input_ids, attention_mask), attention_mask, epsilon)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the representations ``(batch, length, hidden_size)``, without noise."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def classify(self, hidden: Tensor, attention_mask: Tensor, epsilon: Tensor | None) -> Output:
        """Classify representations; several noise draws can share one :meth:`encode`."""
        mask = attention_mask if self.mask_padding else None
        if self.reconstruction is None:
            return Output(self.head(hidden, mask), None)
        hidden, losses = self.reconstruction(hidden, epsilon)
        everywhere = torch.ones_like(attention_mask)
        loss = masked_mean(losses, everywhere if mask is None else mask)
        return Output(self.head(hidden, mask), loss)
