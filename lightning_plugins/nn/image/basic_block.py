"""The two-convolution residual block of ResNet."""

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))`` with 3x3 convolutions.

    Maps ``(batch, in_channels, height, width)`` to ``(batch, out_channels, height / stride,
    width / stride)``, sizes rounded up.

    Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, figure 5.

    Args:
        in_channels: of the input.
        out_channels: of both convolutions.
        stride: of the first convolution.
        shortcut: brings the input to the shape of the output.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: nn.Module
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        return (self.residual(x) + self.shortcut(x)).relu()
