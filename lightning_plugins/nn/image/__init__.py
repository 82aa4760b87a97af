"""The papers' image networks for 8 to 64 pixel inputs."""

from lightning_plugins.nn.image.factory import IMAGE_NETWORKS, build_image_network
from lightning_plugins.nn.image.groupnorm_cnn import GroupNormCNN
from lightning_plugins.nn.image.mlp import MLP
from lightning_plugins.nn.image.resnet18 import ResNet18
from lightning_plugins.nn.image.resnet20 import ResNet20
from lightning_plugins.nn.image.vgg import VGG16
from lightning_plugins.nn.image.wide_resnet import WideResNet

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
