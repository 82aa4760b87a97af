"""Wide ResNet WRN-16-8."""

from torch import Tensor, nn

from lightning_plugins.nn.image.initialization import initialize_convolutions


class WideResNet(nn.Module):
    """WRN-16-8: three stages of two pre-activation blocks with 128, 256 and 512 channels.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 10.96M parameters
    for 3 channels and 10 classes.

    Source: Zagoruyko and Komodakis, Wide Residual Networks, arXiv 1605.07146, table 1.

    Args:
        num_classes: logits.
        in_channels: of the images.
        dropout: probability of a zero between the two convolutions of each block.
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
        """Logits of ``images``."""
        features = self.norm(self.blocks(self.stem(images))).relu()
        return self.classifier(features.mean(dim=(2, 3)))


class PreActivationBlock(nn.Module):
    """Normalise, rectify, convolve, twice; a 1x1 projection where the shape changes."""

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
        """``(b, in_channels, h, w)`` to ``(b, out_channels, h / stride, w / stride)``."""
        activated = self.norm(x).relu()
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.residual(activated)
