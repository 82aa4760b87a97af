"""Sine embedding of the places of a square grid."""

import math

import torch
from torch import Tensor


def sine_positions(num_tokens: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Embedding ``(num_tokens, dim)`` of a square grid's cells, row by row.

    The form of DETR (Carion et al., arXiv 2005.12872, appendix A.4): the first half of the channels
    is for the row, the second for the column; sine and cosine alternate. Places are the centres of
    the cells, scaled to (0, 2 pi), so grids of all sizes cover the same range.

    Raises:
        ValueError: a grid that is not square, or ``dim`` that 4 does not divide.
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
