"""Projected gradient descent (PGD) on the adversary's problem."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.attacks.image.input_gradient import Loss, input_gradient
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel


def pgd(
    loss: Loss,
    inputs: Tensor,
    eps: float,
    *,
    norm: Norm = "linf",
    step_size: float | None = None,
    steps: int = 10,
    random_start: bool = True,
    restarts: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
    check_range: bool = True,
) -> Tensor:
    """``x_{t+1} = P(x_t + step_size * sign(dL/dx_t))``, P the projection on the allowed images.

    In L2 the step is ``step_size * g / ||g||`` with ``g = dL/dx_t`` of each image. It begins at a
    point drawn uniformly from the ball, or at the image itself. The last iterate is returned; of
    several restarts, for each sample the one with the highest loss.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu, arXiv 1706.06083, section 2.1.

    Args:
        loss: from inputs to the mean loss, or to one for each sample, which restarts need.
        inputs: ``(batch, channels, ...)``, floating point.
        eps: radius in pixel units: see :class:`ThreatModel`.
        norm: of the perturbation.
        step_size: in pixel units, > 0; None is ``eps / 2``.
        steps: gradients for each restart, at least 1.
        random_start: begin at a random point, not at the image.
        restarts: from different random points, at least 1.
        mean: where inputs are normalized.
        std: where inputs are normalized.
        clamp: lowest and highest pixel value.
        generator: on the device of the inputs; None draws from its global generator.
        check_range: refuse inputs outside ``clamp``, which waits for the device.

    Returns:
        Adversarial inputs of the same shape and type, detached.

    Raises:
        ValueError: an argument outside its range; inputs that are not floating point, not in
            ``clamp`` or of other channels than ``mean``; a loss of another shape.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    check_iterations(steps, restarts, step_size)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts}: without random_start all of them are the same")
    threat.check(inputs, check_range)
    step_size = eps / 2 if step_size is None else step_size
    with torch.inference_mode(False), torch.no_grad():
        inputs = inputs.detach().clone()
        strongest, highest = inputs, None
        for _ in range(restarts):
            start = threat.random_point(inputs, generator) if random_start else inputs
            found = climb(loss, start, inputs, threat, step_size, steps)
            if restarts == 1:
                return found
            value = loss(found)
            if value.shape != inputs.shape[:1]:
                raise ValueError(
                    f"loss has shape {tuple(value.shape)}: restarts are compared by one loss for "
                    f"each sample, shape ({len(inputs)},)"
                )
            if highest is None:
                strongest, highest = found, value
                continue
            is_higher = (value > highest).view(-1, *[1] * (inputs.dim() - 1))
            strongest = torch.where(is_higher, found, strongest)
            highest = torch.maximum(value, highest)
        return strongest


def climb(
    loss: Loss, start: Tensor, inputs: Tensor, threat: ThreatModel, step_size: float, steps: int
) -> Tensor:
    """``steps`` projected ascent steps from ``start``, in the allowed set around ``inputs``."""
    perturbed = start
    for _ in range(steps):
        gradient = input_gradient(loss, perturbed)
        perturbed = threat.project(threat.ascend(perturbed, gradient, step_size), inputs)
    return perturbed


def check_iterations(steps: int, restarts: int, step_size: float | None) -> None:
    """Refuse counts below 1 and steps that lead nowhere."""
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    if restarts < 1:
        raise ValueError(f"restarts={restarts}: expected at least 1")
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size={step_size}: expected more than 0, in pixel units")
