"""Fast gradient sign method."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.attacks.image.input_gradient import Loss, input_gradient
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel


def fgsm(
    loss: Loss,
    inputs: Tensor,
    eps: float,
    *,
    norm: Norm = "linf",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    check_range: bool = True,
) -> Tensor:
    """One step of length ``eps``: ``x + eps * sign(dL/dx)``, clipped to the valid range.

    In L2 it is ``x + eps * g / ||g||`` with ``g = dL/dx`` of each image. It solves the adversary's
    problem exactly where the loss is linear in the input.

    Source: Goodfellow, Shlens and Szegedy, arXiv 1412.6572, section 4.

    Args:
        loss: from inputs to the mean loss, or to one for each sample.
        inputs: ``(batch, channels, ...)``, floating point.
        eps: radius in pixel units, as the next three: see :class:`ThreatModel`.
        norm: of the perturbation.
        mean: where inputs are normalized.
        std: where inputs are normalized.
        clamp: lowest and highest pixel value.
        check_range: refuse inputs outside ``clamp``, which waits for the device.

    Returns:
        Adversarial inputs of the same shape and type, detached.

    Raises:
        ValueError: an argument outside its range; inputs that are not floating point, not in
            ``clamp`` or of other channels than ``mean``; a loss of another shape.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    threat.check(inputs, check_range)
    gradient = input_gradient(loss, inputs)
    with torch.inference_mode(False), torch.no_grad():
        inputs = inputs.detach().clone()
        return threat.project(threat.ascend(inputs, gradient, eps), inputs)
