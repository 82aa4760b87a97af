"""Random squares cut out of training pictures."""

import torch
from torch import Tensor


class Cutout(torch.nn.Module):
    """Sets a square to zero, its centre uniform over the picture, clipped at the border.

    Draws from torch's global generator.

    Source: DeVries and Taylor, arXiv 1708.04552, section 3.2; applied with a probability as in
    the released code of the late-phase SAM paper.

    Args:
        size: pixels a side of the square.
        probability: of applying it.
    """

    def __init__(self, size: int, probability: float = 0.5) -> None:
        super().__init__()
        self.size = size
        self.probability = probability

    def forward(self, image: Tensor) -> Tensor:
        """``image`` ``(channels, height, width)`` with the square cut out, as a new tensor."""
        if torch.rand(()) >= self.probability:
            return image
        height, width = image.shape[-2:]
        top = int(torch.randint(height, ())) - self.size // 2
        left = int(torch.randint(width, ())) - self.size // 2
        image = image.clone()
        image[..., max(top, 0) : top + self.size, max(left, 0) : left + self.size] = 0
        return image
