"""ResNet-20 for CIFAR."""

from torch import Tensor, nn

from lightning_plugins.nn.image.basic_block import BasicBlock
from lightning_plugins.nn.image.initialization import initialize_convolutions


class ResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels, and parameter-free shortcuts.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 0.27M parameters
    for 3 channels and 10 classes.

    Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section
    4.2, with the identity shortcuts ("option A") used there on CIFAR.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = []
        channels = 16
        for out_channels, stride in ((16, 1), (32, 2), (64, 2)):
            for block in range(3):
                block_stride = stride if block == 0 else 1
                shortcut = ZeroPaddedShortcut(channels, out_channels, block_stride)
                blocks.append(BasicBlock(channels, out_channels, block_stride, shortcut))
                channels = out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, num_classes)
        initialize_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        features = self.blocks(self.stem(images))
        return self.classifier(features.mean(dim=(2, 3)))


class ZeroPaddedShortcut(nn.Module):
    """Every ``stride``-th pixel, and zeros for the channels that the input lacks."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        extra = out_channels - in_channels
        self.padding = (0, 0, 0, 0, extra // 2, extra - extra // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, c, h, w)`` to ``(b, c + extra, h / stride, w / stride)``."""
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], self.padding)
