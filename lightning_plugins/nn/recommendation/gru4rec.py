"""Recurrent sequential recommendation."""

from torch import Tensor, nn

from lightning_plugins.nn.recommendation.item_network import ItemNetwork


class GRU4Rec(ItemNetwork):
    """Gated recurrent units over a history of items.

    Source: Hidasi et al., arXiv 1511.06939, here with tied embeddings and the full softmax.

    Args:
        num_items: Number of items. Items are numbered from 1.
        dim: Size of embeddings and states.
        layers: Number of recurrent layers.
        max_length: Maximum length of a history. Only the latest items are used.
        dropout: Dropout probability, in [0, 1).

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        layers: int = 1,
        max_length: int = 50,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(num_items, dim, max_length, dropout)
        if layers < 1:
            raise ValueError(f"layers={layers}: expected at least 1")
        self.recurrence = nn.GRU(dim, dim, layers, batch_first=True)
        self.projection = nn.Linear(dim, dim)

    def encode(self, items: Tensor) -> Tensor:
        """Return states ``(batch, length, dim)``; each depends on its item and those before it."""
        states, _ = self.recurrence(self.dropout(self.item_embedding(items)))
        return self.projection(self.dropout(states))
