"""Self-attentive sequential recommendation."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_plugins.nn.recommendation.dropout import Dropout
from lightning_plugins.nn.recommendation.item_network import ItemNetwork


class SASRec(ItemNetwork):
    """Causal self-attention over a history of items.

    The blocks are pre-norm, as in the training recipe of Klenitskiy and Vasilev.

    Source: Kang and McAuley, arXiv 1808.09781. The full softmax replaces one sampled negative, as
    in Klenitskiy and Vasilev, arXiv 2309.07602.

    Args:
        num_items: Number of items. Items are numbered from 1.
        dim: Size of embeddings and states, a multiple of ``heads``.
        layers: Number of attention blocks.
        heads: Number of attention heads per block.
        max_length: Maximum length of a history. Only the latest items are used.
        dropout: Dropout probability, in [0, 1).

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(num_items, dim, max_length, dropout)
        for name, value in {"layers": layers, "heads": heads}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if dim % heads:
            raise ValueError(f"dim={dim}: expected a multiple of heads={heads}")
        self.position_embedding = nn.Embedding(max_length, dim)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        self._add_parameters(dim, heads)
        self.blocks = nn.ModuleList(AttentionBlock(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def encode(self, items: Tensor) -> Tensor:
        """Return states ``(batch, length, dim)``; each depends on its item and those before it."""
        return self.norm(self._attended(self._embedded(items)))

    def _add_parameters(self, dim: int, heads: int) -> None:
        """Create a subclass's parameters, before the blocks draw their initial weights."""

    def _embedded(self, items: Tensor) -> Tensor:
        positions = torch.arange(items.shape[1], device=items.device)
        return self.item_embedding(items) + self.position_embedding(positions)

    def _attended(self, states: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply dropout and all blocks; ``bias`` as for :meth:`AttentionBlock.forward`."""
        states = self.dropout(states)
        for block in self.blocks:
            states = block(states, bias)
        return states


class AttentionBlock(nn.Module):
    """Causal attention and a feed-forward network, each with a pre-norm and a residual.

    Args:
        dim: Size of the states, a multiple of ``heads``.
        heads: Number of attention heads.
        dropout: Dropout probability, in [0, 1).
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(dim, dim),
        )
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the states after the block.

        Args:
            states: States ``(batch, length, dim)``.
            bias: Bias that is added to the attention scores ``(batch, heads, length, length)``. It
                must include the causal mask. None means causal attention without a bias.
        """
        projected = self.queries_keys_values(self.attention_norm(states))
        # each (batch, heads, length, dim of a head)
        queries, keys, values = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Padding is at the end, so the causal mask already hides it from every item.
        mixed = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=bias,
            is_causal=bias is None,
        )
        states = states + self.dropout(self.projection(mixed.transpose(1, 2).flatten(2)))
        return states + self.dropout(self.feed_forward(states))
