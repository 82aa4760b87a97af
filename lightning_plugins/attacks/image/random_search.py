"""Random search over squares of an image: an attack without gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.attacks.image.gradient_attacks import Loss
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel


def random_search(
    loss: Loss,
    inputs: Tensor,
    eps: float,
    *,
    norm: Norm = "linf",
    queries: int = 200,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Change a random square of each image as far as allowed, and keep changes that raise the loss.

    The search starts at random vertical stripes of ``+-eps``. The squares shrink from the whole
    side to one pixel over the queries. If it finds adversarial images that gradient attacks do not
    find, the network masks its gradients and is not robust.

    Source: the idea of Square Attack, Andriushchenko, Croce, Flammarion and Hein, arXiv 1912.00049,
    with a geometric schedule of the side and, in L2, steps that shrink with the side. For published
    figures use :func:`auto_attack_accuracy`.

    Args:
        loss: A function from inputs to one loss per sample, ``(batch,)``; need not be
            differentiable.
        inputs: Floating-point tensor ``(batch, channels, height, width)``.
        eps: The radius in pixel units; see :class:`ThreatModel`.
        norm: The norm of the perturbation.
        queries: The number of evaluations of the loss, at least 1.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value.
        generator: A generator on the device of the inputs; None uses the global one.

    Returns:
        Inputs of the same shape and dtype, detached.

    Raises:
        ValueError: An argument is outside its range, or the inputs do not fit the threat model.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    if queries < 1:
        raise ValueError(f"queries={queries}: expected at least 1")
    threat.check(inputs)
    if inputs.dim() != 4:
        raise ValueError(
            f"inputs have shape {tuple(inputs.shape)}: expected (batch, channels, height, width)"
        )
    with torch.inference_mode(False), torch.no_grad():
        inputs = inputs.detach().clone()
        stripes = _signs(inputs[:, :, :1], generator).expand_as(inputs)
        best = threat.project(threat.ascend(inputs, stripes, eps), inputs)
        highest = loss(best)
        longest = max(inputs.shape[-2:])
        for query in range(1, queries):
            side = round(longest ** (1 - query / queries))
            square = _squares(inputs, side, generator) * _signs(inputs[:, :, :1, :1], generator)
            # L-infinity: from one bound to the other. L2: shorter with the side of the square.
            step = 2 * eps if norm == "linf" else eps * side / longest
            proposed = threat.project(threat.ascend(best, square, step), inputs)
            value = loss(proposed)
            is_higher = value > highest
            best = torch.where(is_higher.view(-1, 1, 1, 1), proposed, best)
            highest = torch.maximum(value, highest)
        return best


def _signs(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(like).uniform_(-1, 1, generator=generator).sign()


def _squares(inputs: Tensor, side: int, generator: torch.Generator | None) -> Tensor:
    """Return a random square for each image: ones inside and zeros elsewhere."""
    rows, columns = (
        _interval(len(inputs), length, side, generator, inputs) for length in inputs.shape[-2:]
    )
    return (rows.unsqueeze(2) * columns.unsqueeze(1)).unsqueeze(1)


def _interval(
    count: int, length: int, side: int, generator: torch.Generator | None, like: Tensor
) -> Tensor:
    side = min(side, length)
    first = torch.randint(0, length - side + 1, (count, 1), generator=generator, device=like.device)
    place = torch.arange(length, device=like.device)
    return ((place >= first) & (place < first + side)).to(like.dtype)
