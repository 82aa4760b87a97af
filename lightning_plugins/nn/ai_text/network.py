"""An encoder, what makes its representations robust, and a classifier of the whole text."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_plugins.nn.ai_text.reconstruction import ReconstructionNetwork, masked_mean


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
