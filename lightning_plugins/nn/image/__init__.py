"""The image networks of the papers, for inputs of 8 to 64 pixels."""

from lightning_plugins.nn.image.factory import IMAGE_NETWORKS, build_image_network
from lightning_plugins.nn.image.plain_networks import MLP, VGG16, GroupNormCNN
from lightning_plugins.nn.image.residual_networks import ResNet18, ResNet20, WideResNet

__all__ = [
    "IMAGE_NETWORKS",
    "MLP",
    "VGG16",
    "GroupNormCNN",
    "ResNet18",
    "ResNet20",
    "WideResNet",
    "build_image_network",
]
