"""Self-attentive sequential recommendation."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_plugins.nn.recommendation.dropout import Dropout
from lightning_plugins.nn.recommendation.item_network import ItemNetwork


class SASRec(ItemNetwork):
    """Causal self-attention over a history of items.

    Blocks are pre-norm, as in the training recipe of Klenitskiy and Vasilev.

    Source: Kang and McAuley, arXiv 1808.09781; the full softmax instead of one sampled negative:
    Klenitskiy and Vasilev, arXiv 2309.07602.

    Args:
        num_items: items, numbered from 1.
        dim: of embeddings and states, a multiple of ``heads``.
        layers: blocks.
        heads: of each block's attention.
        max_length: items of a history that are looked at, the latest.
        dropout: probability, in [0, 1).

    Raises:
        ValueError: an argument outside its range.
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
        self.position_embedding = nn.Embedding(max_length, dim)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.blocks = attention_blocks(dim, layers, heads, dropout)
        self.norm = nn.LayerNorm(dim)

    def encode(self, items: Tensor) -> Tensor:
        """States ``(batch, length, dim)``, each of what came up to and with its item."""
        positions = torch.arange(items.shape[1], device=items.device)
        states = self.dropout(self.item_embedding(items) + self.position_embedding(positions))
        for block in self.blocks:
            states = block(states)
        return self.norm(states)


def attention_blocks(dim: int, layers: int, heads: int, dropout: float) -> nn.ModuleList:
    """``layers`` blocks of attention.

    Raises:
        ValueError: an argument outside its range.
    """
    for name, value in {"layers": layers, "heads": heads}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if dim % heads:
        raise ValueError(f"dim={dim}: expected a multiple of heads={heads}")
    return nn.ModuleList(AttentionBlock(dim, heads, dropout) for _ in range(layers))


class AttentionBlock(nn.Module):
    """Causal attention and a feed-forward network, each after a norm and around a residual."""

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
        """States after the block; ``bias`` is added to the attention, and then holds causality."""
        projected = self.queries_keys_values(self.attention_norm(states))
        # each (batch, heads, length, dim of a head)
        queries, keys, values = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Padding stands at the end, so causality alone hides it from every item.
        mixed = scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=bias,
            is_causal=bias is None,
        )
        states = states + self.dropout(self.projection(mixed.transpose(1, 2).flatten(2)))
        return states + self.dropout(self.feed_forward(states))
