"""A fully connected network on pixels."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers of 128 rectified units on the flattened image.

    ``(batch, in_channels, image_size, image_size)`` to logits ``(batch, num_classes)``; 26 122
    parameters for 1 channel, 8 pixels a side and 10 classes.

    Args:
        num_classes: logits.
        in_channels: of the images.
        image_size: pixels a side.
        dropout: probability of a zero after each hidden layer.
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
        """Logits of ``images``."""
        return self.layers(images)
