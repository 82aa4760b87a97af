"""ResNet-18 with a stem for small images."""

from torch import Tensor, nn

from lightning_plugins.nn.image.basic_block import BasicBlock
from lightning_plugins.nn.image.initialization import initialize_convolutions


class ResNet18(nn.Module):
    """ResNet-18 whose stem is one 3x3 convolution, so that 32 pixels are not halved twice.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 11.17M parameters
    for 3 channels and 10 classes.

    Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, table 1,
    projection shortcuts ("option B"); the stem is the one customary on CIFAR.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = []
        channels = 64
        for out_channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            for block_stride in (stride, 1):
                shortcut = _projection(channels, out_channels, block_stride)
                blocks.append(BasicBlock(channels, out_channels, block_stride, shortcut))
                channels = out_channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(512, num_classes)
        initialize_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        features = self.blocks(self.stem(images))
        return self.classifier(features.mean(dim=(2, 3)))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
