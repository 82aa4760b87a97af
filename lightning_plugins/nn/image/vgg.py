"""VGG-16 with batch normalisation for small images."""

from torch import Tensor, nn

from lightning_plugins.nn.image.initialization import initialize_convolutions

_CHANNELS_BY_STAGE = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions in five halving stages, a global mean, and one linear layer.

    ``(batch, in_channels, height, width)``, at least 32 pixels a side, to logits ``(batch,
    num_classes)``; 14.7M parameters for 3 channels and 10 classes. The mean stands where the
    original has three linear layers for 224 pixels, so that 32 and 64 pixels both fit.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks, arXiv 1409.1556, table 1,
    column D; batch normalisation after each convolution.
    """

    MIN_IMAGE_SIZE = 32

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in _CHANNELS_BY_STAGE:
            for out_channels in stage:
                # The bias cancels in the normalisation, but the published counts include it.
                layers += [
                    nn.Conv2d(channels, out_channels, 3, padding=1),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(inplace=True),
                ]
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ``images``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
