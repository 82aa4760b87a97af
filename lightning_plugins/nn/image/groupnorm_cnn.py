"""A small convolutional network without batch statistics."""

from torch import Tensor, nn

from lightning_plugins.nn.image.initialization import initialize_convolutions


class GroupNormCNN(nn.Module):
    """Three 3x3 convolutions with 16, 32 and 32 channels, each with group normalisation.

    ``(batch, in_channels, height, width)`` to logits ``(batch, num_classes)``; 14.5k parameters
    for 1 channel and 10 classes. The second convolution halves the image, so 8 pixels a side
    leave 4. No layer mixes the samples of a batch and there are no buffers, so that weights can
    be averaged between agents without estimating statistics anew.

    Source of the normalisation: Wu and He, Group Normalization, arXiv 1803.08494; the layers are
    this package's own.
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
        """Logits of ``images``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
