"""Image networks without skip connections: VGG-16, a small convolutional network and an MLP."""

from torch import Tensor, nn

_CHANNELS_BY_STAGE = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """VGG-16: thirteen 3x3 convolutions in five stages, a global mean, and one linear layer.

    ``(batch, in_channels, height, width)``, at least 32 pixels a side, to logits ``(batch,
    num_classes)``; 14.7M parameters for 3 channels and 10 classes. The mean replaces the
    three linear layers of the original, which require 224 pixels; 32 and 64 pixels both work.

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
                # Normalization cancels the bias, but the published parameter counts include it.
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
        """Compute the logits of ``images``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class GroupNormCNN(nn.Module):
    """Three 3x3 convolutions with 16, 32 and 32 channels, each with group normalization.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 14.5k parameters
    for 1 channel and 10 classes. The second convolution halves height and width. No layer
    mixes the samples of a batch and there are no buffers, so agents can average weights without
    recomputing batch statistics.

    Source of the normalization: Wu and He, Group Normalization, arXiv 1803.08494; the architecture
    is our own.
    """

    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for out_channels, stride in ((16, 1), (32, 2), (32, 1)):
            layers += [
                nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(4, out_channels),
                nn.ReLU(inplace=True),
            ]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialize_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of ``images``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class MLP(nn.Module):
    """Two hidden layers of 128 rectified units on the flattened image.

    ``(batch, in_channels, image_size, image_size)`` to logits ``(batch, num_classes)``; 26 122
    parameters for 1 channel, 8x8 pixels and 10 classes.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the images.
        image_size: Height and width in pixels.
        dropout: Dropout probability after each hidden layer.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 1, image_size: int = 8, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * image_size**2, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(128, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of ``images``."""
        return self.layers(images)


def initialize_convolutions(network: nn.Module) -> None:
    """Draw convolution weights from N(0, 2 / fan_out), which preserves the variance of gradients.

    Uses torch's global generator, like the layers of ``torch.nn``.

    Source: He et al., Delving Deep into Rectifiers, arXiv 1502.01852, equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
