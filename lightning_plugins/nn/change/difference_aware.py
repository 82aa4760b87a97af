"""The difference-aware integration module of CCExpert and its layers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

_RELEASED_DIM = 1152


class DifferenceAwareIntegration(nn.Module):
    """Adds features of the difference between two images to the features of each image.

    Source: Wang et al., CCExpert (arXiv 2411.11360), as computed by their released code. The inputs
    are the tokens ``A_k``, ``B_k`` of the pair at several levels ``k`` of a vision network. All
    levels share the weights.

    - Change initialisation: ``A' = A sigmoid(W1 [A; B])``, ``B' = B sigmoid(W1 [B; A])``,
      ``D = W2 [A'; B'; A' - B']``. It is computed again before each layer and added to the change
      tokens.
    - Refinement by ``num_layers``
      :class:`~lightning_plugins.nn.change.difference_aware.ChangeExpertLayer`.
    - Adaptive weighting: ``g_k = sigmoid(W4 gelu(W3 mean over tokens [A_k; B_k; D_k]))``, one
      number per pair and level. The fused features are ``sum_k g_k X_k / (sum_k g_k + 1e-6)``.
    - Output: the last level of each image plus its fused features.

    The shape of the images' features does not change, so they fit a projector and a language model
    that were trained on features of single images.

    Args:
        dim: Channels of a token; a multiple of 4 and of ``num_heads``.
        num_layers: Number of expert layers.
        num_heads: Heads of each attention; None for one head per 128 channels, as released.
        zero_gate: Multiply the fused features by one weight per channel, initially 0, so that the
            output of a new module is the last level, bit for bit. The released code has no gate:
            its output differs from the start, and its first training stage adapts to that.
        keep_unused: Also create the parameters that the released code declares but does not use
            (6.6 M at ``dim=1152``); with them DDP requires ``find_unused_parameters``.

    Raises:
        ValueError: An argument is outside its range, or the levels have different shapes.
    """

    gradient_checkpointing = False
    """Recompute the activations of each layer in the backward pass; transformers sets it too."""

    def __init__(
        self,
        dim: int = 1152,
        num_layers: int = 2,
        num_heads: int | None = None,
        zero_gate: bool = True,
        keep_unused: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers}: expected at least 1")
        num_heads = max(1, dim // 128) if num_heads is None else num_heads
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads={num_heads}: expected a divisor of dim={dim}")
        if dim % 4:
            raise ValueError(f"dim={dim}: expected a multiple of 4")
        self.dim = dim
        self.change_initialization = ChangeInitialization(dim)
        self.layers = nn.ModuleList(
            ChangeExpertLayer(dim, num_heads, 4 * dim, keep_unused) for _ in range(num_layers)
        )
        self.level_weight = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.Linear(dim, 1))
        if keep_unused:
            self.unused_projection = nn.Linear(dim, dim)
            self.unused_attention = nn.MultiheadAttention(dim, num_heads)
        self.output_gate = nn.Parameter(torch.empty(dim)) if zero_gate else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights of the released code, and set the gate to 0.

        The released standard deviation of 0.02 is meant for 1152 channels. A layer of fewer
        channels sums fewer products, so its weights are scaled up here. With 0.02 and 64 channels,
        each layer would reduce its input to a sixth, and the change would hardly reach the output.
        """
        std = 0.02 * math.sqrt(_RELEASED_DIM / self.dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, ChangeExpertLayer):
                for flag in (module.flag_before, module.flag_after, module.flag_change):
                    nn.init.normal_(flag)
        if self.output_gate is not None:
            nn.init.zeros_(self.output_gate)

    def forward(
        self, before: Sequence[Tensor], after: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the features of the first image, the second image and the change.

        Args:
            before: Tokens of the first image at each level, ``(batch, tokens, dim)`` each, in a
                square grid; the last level is last.
            after: Tokens of the second image, likewise.

        Returns:
            Three tensors ``(batch, tokens, dim)``.
        """
        shapes = {tuple(level.shape) for level in (*before, *after)}
        if len(before) != len(after) or len(shapes) != 1:
            raise ValueError(
                f"levels of shapes {[tuple(level.shape) for level in before]} and "
                f"{[tuple(level.shape) for level in after]}: expected the same number of levels "
                "for both images, all of one shape"
            )
        num_levels, tokens = len(before), before[0].shape[1]
        positions = sine_positions(tokens, self.dim, before[0].device).to(before[0].dtype)
        first, second = torch.cat(list(before)), torch.cat(list(after))
        change: Tensor | None = None
        for layer in self.layers:
            initial = self.change_initialization(first, second)
            change = initial if change is None else change + initial
            if self.gradient_checkpointing and self.training:
                change, first, second = checkpoint(
                    layer, change, first, second, positions, use_reentrant=False
                )
            else:
                change, first, second = layer(change, first, second, positions)
        assert change is not None

        pooled = torch.cat([first, second, change], dim=-1).mean(dim=1)
        weights = self.level_weight(pooled).sigmoid().view(num_levels, -1, 1, 1)
        fused_first, fused_second, fused_change = (
            _weighted_mean(tokens.unflatten(0, (num_levels, -1)), weights)
            for tokens in (first, second, change)
        )
        if self.output_gate is not None:
            fused_first = fused_first * self.output_gate
            fused_second = fused_second * self.output_gate
        return before[-1] + fused_first, after[-1] + fused_second, fused_change


class ChangeInitialization(nn.Module):
    """Initial tokens of the change, from the tokens of both images ``(batch, tokens, dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.relevance = nn.Linear(2 * dim, dim)
        self.mixing = nn.Linear(3 * dim, dim)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Return tokens of the change ``(batch, tokens, dim)``."""
        first = before * self.relevance(torch.cat([before, after], dim=-1)).sigmoid()
        second = after * self.relevance(torch.cat([after, before], dim=-1)).sigmoid()
        return self.mixing(torch.cat([first, second, first - second], dim=-1))


def _weighted_mean(levels: Tensor, weights: Tensor) -> Tensor:
    return (levels * weights).sum(dim=0) / (weights.sum(dim=0) + 1e-6)


class ChangeExpertLayer(nn.Module):
    """Refines the tokens of the change by attention to both images, and the images in turn.

    An unusual residual of the released code is kept: a refined image is its *query*, including
    positions and flag, plus the attention output, without a norm.

    Args:
        dim: Channels of a token.
        num_heads: Heads of each attention.
        hidden_dim: Hidden size of the feed-forward part.
        keep_unused: Also create the norm that the released code declares and never applies.
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
        # Initialised by DifferenceAwareIntegration.reset_parameters.
        self.flag_before = nn.Parameter(torch.empty(1, dim))
        self.flag_after = nn.Parameter(torch.empty(1, dim))
        self.flag_change = nn.Parameter(torch.empty(1, dim))

    def forward(
        self, change: Tensor, before: Tensor, after: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the refined ``(change, before, after)``.

        Args:
            change: Tokens of the change ``(batch, tokens, dim)``.
            before: Tokens of the first image, of the same shape.
            after: Tokens of the second image, of the same shape.
            positions: Position embedding ``(tokens, dim)``.
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
        """Attend from ``queries`` ``(batch, tokens, dim)`` to keys ``(batch, others, dim)``."""
        attended = scaled_dot_product_attention(
            self._heads(self.queries(queries)),
            self._heads(self.keys(keys)),
            self._heads(self.values(values)),
        )
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def sine_positions(num_tokens: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Return the sine position embedding ``(num_tokens, dim)`` of a square grid, row by row.

    It has the form of DETR (Carion et al., arXiv 2005.12872, appendix A.4): the first half of the
    channels encodes the row, the second half the column; sine and cosine alternate. Positions are
    the centres of the cells, scaled to (0, 2 pi), so grids of all sizes cover the same range.

    Raises:
        ValueError: The grid is not square, or ``dim`` is not a multiple of 4.
    """
    side = math.isqrt(num_tokens)
    if side * side != num_tokens:
        raise ValueError(f"num_tokens={num_tokens}: expected a square grid of tokens")
    if dim % 4:
        raise ValueError(f"dim={dim}: expected a multiple of 4")
    half = dim // 2
    centres = (torch.arange(side, dtype=torch.float32, device=device) + 0.5) / (side + 1e-6)
    pair = torch.arange(half, device=device).div(2, rounding_mode="floor")
    angles = centres[:, None] * 2 * math.pi / 10000 ** (2 * pair / half)
    axis = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)
    rows = axis[:, None].expand(side, side, half)
    columns = axis[None].expand(side, side, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
