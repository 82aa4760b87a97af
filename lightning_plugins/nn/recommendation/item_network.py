"""What next-item networks share: item embeddings that are also the output weights."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from lightning_plugins.nn.recommendation.dropout import Dropout

NetworkName = Literal["sasrec", "gru4rec", "irn"]


class ItemNetwork(nn.Module):
    """Scores every item as a user's next one; a leaf adds :meth:`encode`.

    Sequences are int64 item numbers ``(batch, length)`` in the order of time, 0 after their end.
    Trained with the full softmax at all positions, so that scores are logits of probabilities.

    Args:
        num_items: items, numbered from 1.
        dim: of embeddings and states.
        max_length: items of a history that are looked at, the latest.
        dropout: probability, in [0, 1).

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, num_items: int, dim: int, max_length: int, dropout: float) -> None:
        super().__init__()
        for name, value in {"num_items": num_items, "dim": dim, "max_length": max_length}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a probability in [0, 1)")
        self.num_items = num_items
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, dim, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        self.dropout = Dropout(dropout)

    def encode(self, items: Tensor) -> Tensor:
        """States ``(batch, length, dim)``, each of what came up to and with its item."""
        raise NotImplementedError

    def state(self, items: Tensor) -> Tensor:
        """The state ``(batch, dim)`` after the last item of each sequence."""
        last = (items > 0).sum(dim=1).clamp(min=1) - 1
        return self.encode(items)[torch.arange(len(items), device=items.device), last]

    def logits(self, states: Tensor) -> Tensor:
        """Logits ``(..., num_items + 1)`` of states ``(..., dim)``; padding has minus infinity."""
        return pad(states @ self.item_embedding.weight[1:].T, (1, 0), value=-torch.inf)

    def forward(self, items: Tensor) -> Tensor:
        """Logits ``(batch, num_items + 1)`` of the next item."""
        return self.logits(self.state(items))

    def loss(self, sequences: Tensor) -> Tensor:
        """Mean cross-entropy in nats of each item given those before it.

        Args:
            sequences: ``(batch, length + 1)``, ``length`` at most ``max_length``.
        """
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        is_target = targets > 0
        # Padding is left out before the product with all items, which is most of the work.
        states = self.encode(inputs)[is_target]
        return cross_entropy(states @ self.item_embedding.weight[1:].T, targets[is_target] - 1)
