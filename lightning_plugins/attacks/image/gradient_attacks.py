"""Attacks that follow the gradient of a loss: FGSM and projected gradient descent (PGD)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel

Loss = Callable[[Tensor], Tensor]


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
    """Attack with one step of length ``eps``: ``x + eps * sign(dL/dx)``, clipped to valid pixels.

    In L2 the step is ``eps * g / ||g||`` with ``g = dL/dx`` of each image. If the loss is linear in
    the input, the result is the exact worst case.

    Source: Goodfellow, Shlens and Szegedy, arXiv 1412.6572, section 4.

    Args:
        loss: A function from inputs to the mean loss, or to one loss per sample.
        inputs: Floating-point tensor ``(batch, channels, ...)``.
        eps: The radius in pixel units. For this and the next four arguments see
            :class:`ThreatModel`.
        norm: The norm of the perturbation.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value.
        check_range: Whether to refuse inputs outside ``clamp``; the check synchronizes with the
            device.

    Returns:
        Adversarial inputs of the same shape and dtype, detached.

    Raises:
        ValueError: An argument is outside its range; the inputs are not floating point, are outside
            ``clamp``, or have another number of channels than ``mean``; or the loss has another
            shape.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    threat.check(inputs, check_range)
    gradient = input_gradient(loss, inputs)
    with torch.inference_mode(False), torch.no_grad():
        inputs = inputs.detach().clone()
        return threat.project(threat.ascend(inputs, gradient, eps), inputs)


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
    """Iterate ``x_{t+1} = P(x_t + step_size * sign(dL/dx_t))``, P the projection on valid images.

    In L2 the step is ``step_size * g / ||g||`` with ``g = dL/dx_t`` of each image. The iteration
    starts at a point drawn uniformly from the ball, or at the image itself. The last iterate is
    returned. With several restarts, the iterate with the highest loss is returned for each sample.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu, arXiv 1706.06083, section 2.1.

    Args:
        loss: A function from inputs to the mean loss, or to one loss per sample. Several restarts
            require one loss per sample.
        inputs: Floating-point tensor ``(batch, channels, ...)``.
        eps: The radius in pixel units; see :class:`ThreatModel`.
        norm: The norm of the perturbation.
        step_size: The step size in pixel units, above 0; None means ``eps / 2``.
        steps: The number of gradients per restart, at least 1.
        random_start: Whether to start at a random point instead of the image.
        restarts: The number of random starting points, at least 1.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value.
        generator: A generator on the device of the inputs; None uses the global one.
        check_range: Whether to refuse inputs outside ``clamp``; the check synchronizes with the
            device.

    Returns:
        Adversarial inputs of the same shape and dtype, detached.

    Raises:
        ValueError: An argument is outside its range; the inputs are not floating point, are outside
            ``clamp``, or have another number of channels than ``mean``; or the loss has another
            shape.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    check_iterations(steps, restarts, step_size)
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts={restarts}: without random_start all restarts are the same")
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
                    f"loss has shape {tuple(value.shape)}: several restarts need one loss per "
                    f"sample, shape ({len(inputs)},)"
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
    """Take ``steps`` projected ascent steps from ``start`` in the allowed set around ``inputs``."""
    perturbed = start
    for _ in range(steps):
        gradient = input_gradient(loss, perturbed)
        perturbed = threat.project(threat.ascend(perturbed, gradient, step_size), inputs)
    return perturbed


def input_gradient(loss: Loss, inputs: Tensor) -> Tensor:
    """Return d loss / d inputs, in the shape of ``inputs``; ``.grad`` of parameters is unchanged.

    Works inside ``torch.no_grad`` and ``torch.inference_mode``. Tensors that ``loss`` uses must be
    cloned outside inference mode if they were created in it.

    Args:
        loss: A function from inputs to one number, or to one number per sample.
        inputs: Floating-point tensor; it is not modified.

    Raises:
        ValueError: ``loss`` returns another shape, or does not depend on the inputs.
    """
    with torch.inference_mode(False), torch.enable_grad():
        variable = inputs.detach().clone().requires_grad_()
        value = loss(variable)
        if value.dim() > 1 or (value.dim() == 1 and len(value) not in (1, len(inputs))):
            raise ValueError(
                f"loss has shape {tuple(value.shape)}: expected one number, or {len(inputs)}, one "
                "for each sample"
            )
        if not value.requires_grad:
            raise ValueError("loss is not differentiable by the inputs: does it detach them?")
        return torch.autograd.grad(value.sum(), variable, materialize_grads=True)[0]


def check_iterations(steps: int, restarts: int, step_size: float | None) -> None:
    """Refuse counts below 1 and step sizes that are not positive and finite."""
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    if restarts < 1:
        raise ValueError(f"restarts={restarts}: expected at least 1")
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size={step_size}: expected more than 0, in pixel units")
