"""Builds image networks by name."""

import difflib
import importlib.util
import inspect
from typing import Any

from torch import nn

from lightning_plugins.nn.image.plain_networks import MLP, VGG16, GroupNormCNN
from lightning_plugins.nn.image.residual_networks import ResNet18, ResNet20, WideResNet
from lightning_plugins.optional_packages import install_command

IMAGE_NETWORKS: dict[str, type[nn.Module]] = {
    "groupnorm_cnn": GroupNormCNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet20": ResNet20,
    "vgg": VGG16,
    "wide_resnet": WideResNet,
}


def build_image_network(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    dropout: float = 0.0,
    pretrained: bool = False,
) -> nn.Module:
    """Build a network that maps images to logits.

    The network maps ``(batch, in_channels, image_size, image_size)`` to ``(batch, num_classes)``.

    Args:
        name: ``groupnorm_cnn``, ``mlp``, ``resnet18``, ``resnet20``, ``vgg``, ``wide_resnet``, or
            any model of timm, such as ``vit_tiny_patch16_224`` or ``resnet18.a1_in1k``. A name that
            exists in both, such as ``resnet18``, selects this package's network; add the tag of the
            weights to select timm's.
        num_classes: Number of logits.
        in_channels: Channels of the images.
        image_size: Height and width in pixels.
        dropout: Dropout probability, in [0, 1); for ``mlp``, ``wide_resnet`` and timm's models.
        pretrained: Load timm's published weights.

    Raises:
        ValueError: The name is unknown, an argument is outside its range, or the architecture does
            not support it (``dropout`` without dropout layers, ``pretrained`` for this package's
            networks).
        ImportError: The name may be a model of timm, but timm is missing.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: expected at least 1")
    if in_channels < 1:
        raise ValueError(f"in_channels={in_channels}: expected at least 1")
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: expected at least 1 pixel")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: expected a probability in [0, 1)")
    if name not in IMAGE_NETWORKS:
        return _build_with_timm(name, num_classes, in_channels, image_size, dropout, pretrained)
    if pretrained:
        raise ValueError(
            f"pretrained=True: {name!r} has no published weights; use a model of timm with the tag "
            "of its weights, such as 'resnet18.a1_in1k'"
        )
    network_cls = IMAGE_NETWORKS[name]
    accepted = inspect.signature(network_cls).parameters
    arguments: dict[str, float] = {"num_classes": num_classes, "in_channels": in_channels}
    if "image_size" in accepted:
        arguments["image_size"] = image_size
    if "dropout" in accepted:
        arguments["dropout"] = dropout
    elif dropout:
        supporting = [
            n for n, c in IMAGE_NETWORKS.items() if "dropout" in inspect.signature(c).parameters
        ]
        raise ValueError(
            f"dropout={dropout}: {name!r} has no dropout; use 0, or one of {', '.join(supporting)}"
        )
    smallest = getattr(network_cls, "MIN_IMAGE_SIZE", 1)
    if image_size < smallest:
        raise ValueError(f"image_size={image_size}: {name!r} requires at least {smallest} pixels")
    return network_cls(**arguments)


def _build_with_timm(
    name: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    dropout: float,
    pretrained: bool,
) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        near = difflib.get_close_matches(name, IMAGE_NETWORKS, 3)
        raise ImportError(
            f"network={name!r}: expected one of {', '.join(sorted(IMAGE_NETWORKS))}"
            + (f" (did you mean {' or '.join(near)}?)" if near else "")
            + f"; the models of timm require {install_command('timm', extra='vision')}"
        )
    import timm

    if not timm.is_model(name) and ":" not in name:
        near = difflib.get_close_matches(name, [*IMAGE_NETWORKS, *timm.list_models()], 5)
        raise ValueError(
            f"network={name!r}: expected one of {', '.join(sorted(IMAGE_NETWORKS))} or a model "
            "of timm" + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    options: dict[str, Any] = {}
    if dropout:
        options["drop_rate"] = dropout
    config = timm.get_pretrained_cfg(name) if ":" not in name else None
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        return timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options
        )
    except TypeError as error:
        refused = next((option for option in options if option in str(error)), None)
        if refused is None:
            raise
    ours = {"drop_rate": f"dropout={dropout}", "img_size": f"image_size={image_size}"}[refused]
    raise ValueError(f"{ours}: timm's {name!r} does not support this argument")
