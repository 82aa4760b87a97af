"""Residual networks for images of 8 to 64 pixels: ResNet-20, ResNet-18 and WRN-16-8."""

from torch import Tensor, nn

from lightning_plugins.nn.image.plain_networks import initialize_convolutions


class ResNet20(nn.Module):
    """ResNet-20: three stages of three blocks with 16, 32 and 64 channels; no shortcut parameters.

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
        """Compute the logits of ``images``."""
        features = self.blocks(self.stem(images))
        return self.classifier(features.mean(dim=(2, 3)))


class ZeroPaddedShortcut(nn.Module):
    """Keeps every ``stride``-th pixel and adds channels of zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        extra = out_channels - in_channels
        self.padding = (0, 0, 0, 0, extra // 2, extra - extra // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, c, h, w)`` to ``(b, c + extra, h / stride, w / stride)``."""
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class ResNet18(nn.Module):
    """ResNet-18 with one 3x3 convolution as stem, which keeps the resolution of small images.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 11.17M parameters
    for 3 channels and 10 classes.

    Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, table 1,
    projection shortcuts ("option B"); the stem is the usual one for CIFAR.
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
        """Compute the logits of ``images``."""
        features = self.blocks(self.stem(images))
        return self.classifier(features.mean(dim=(2, 3)))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class WideResNet(nn.Module):
    """WRN-16-8: three stages of two pre-activation blocks with 128, 256 and 512 channels.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 10.96M parameters
    for 3 channels and 10 classes.

    Source: Zagoruyko and Komodakis, Wide Residual Networks, arXiv 1605.07146, table 1.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images.
        dropout: Dropout probability between the two convolutions of each block.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = []
        channels = 16
        for out_channels, stride in ((128, 1), (256, 2), (512, 2)):
            for block_stride in (stride, 1):
                blocks.append(PreActivationBlock(channels, out_channels, block_stride, dropout))
                channels = out_channels
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of ``images``."""
        features = self.norm(self.blocks(self.stem(images))).relu()
        return self.classifier(features.mean(dim=(2, 3)))


class PreActivationBlock(nn.Module):
    """Normalizes, rectifies and convolves twice, with a 1x1 projection if the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        changes_shape = stride != 1 or in_channels != out_channels
        self.projection = (
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            if changes_shape
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, in_channels, h, w)`` to ``(b, out_channels, h / stride, w / stride)``."""
        activated = self.norm(x).relu()
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.residual(activated)


class BasicBlock(nn.Module):
    """The two-convolution block ``relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))``.

    The convolutions are 3x3. The block maps ``(batch, in_channels, height, width)`` to ``(batch,
    out_channels, height / stride, width / stride)``, with sizes rounded up.

    Source: He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, figure 5.

    Args:
        in_channels: Channels of the input.
        out_channels: Output channels of both convolutions.
        stride: Stride of the first convolution.
        shortcut: Maps the input to the shape of the output.
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
        """Apply the block."""
        return (self.residual(x) + self.shortcut(x)).relu()
