"""One layer that refines what changed between two images, and both images by it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class ChangeExpertLayer(nn.Module):
    """Tokens of the change attend to both images, then each image attends to the change.

    One residual of the released code is unusual and kept: a refined image is its *query*, with
    positions and flag added, plus what it attends to, without a norm.

    Args:
        dim: channels of a token.
        num_heads: heads of each attention.
        hidden_dim: width of the feed-forward part.
        keep_unused: also hold the norm that the released code declares and never applies.
    """

    def __init__(self, dim: int, num_heads: int, hidden_dim: int, keep_unused: bool) -> None:
        super().__init__()
        self.change_attention = Attention(dim, num_heads)
        self.change_to_images = Attention(dim, num_heads)
        self.images_to_change = Attention(dim, num_heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim)
        )
        self.norm_change = nn.LayerNorm(dim)
        self.norm_images = nn.LayerNorm(dim)
        self.norm_feed_forward = nn.LayerNorm(dim)
        if keep_unused:
            self.norm_unused = nn.LayerNorm(dim)
        # DifferenceAwareIntegration.reset_parameters fills these.
        self.flag_before = nn.Parameter(torch.empty(1, dim))
        self.flag_after = nn.Parameter(torch.empty(1, dim))
        self.flag_change = nn.Parameter(torch.empty(1, dim))

    def forward(
        self, change: Tensor, before: Tensor, after: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refined ``(change, before, after)``.

        Args:
            change: tokens of the change ``(batch, tokens, dim)``.
            before: tokens of the first image, of that shape.
            after: tokens of the second image, of that shape.
            positions: embedding of the places ``(tokens, dim)``.
        """
        placed = change + positions
        change = self.norm_change(change + self.change_attention(placed, placed, change))

        placed_before = before + positions + self.flag_before
        placed_after = after + positions + self.flag_after
        placed = change + positions + self.flag_change
        attended = self.change_to_images(
            placed,
            torch.cat([placed_before, placed_after, placed], dim=1),
            torch.cat([before, after, change], dim=1),
        )
        change = self.norm_images(change + attended)
        change = self.norm_feed_forward(change + self.feed_forward(change))

        placed = (change + positions + self.flag_change).repeat(2, 1, 1)
        images = torch.cat([before, after])
        placed_images = torch.cat([placed_before, placed_after])
        attended = self.images_to_change(
            placed_images,
            torch.cat([placed_images, placed], dim=1),
            torch.cat([images, change.repeat(2, 1, 1)], dim=1),
        )
        before, after = (placed_images + attended).chunk(2)
        return change, before, after


class Attention(nn.Module):
    """Multi-head softmax attention with projections of queries, keys, values and output."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries = nn.Linear(dim, dim)
        self.keys = nn.Linear(dim, dim)
        self.values = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What ``queries`` ``(batch, tokens, dim)`` find among ``(batch, others, dim)``."""
        attended = scaled_dot_product_attention(
            self._heads(self.queries(queries)),
            self._heads(self.keys(keys)),
            self._heads(self.values(values)),
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
