"""Computes the accuracy of a network on the worst images that an attack finds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.attacks.image.gradient_attacks import check_iterations, climb
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel
from lightning_plugins.nn.module_state import evaluation_mode

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RobustAccuracy:
    """The result of :func:`robust_accuracy` and :func:`auto_attack_accuracy`.

    Attributes:
        natural: The share of unchanged images that are classified correctly.
        robust: The share of images that are classified correctly under every perturbation the
            attack tried; at most ``natural``.
        num_samples: The number of images.
    """

    natural: float
    robust: float
    num_samples: int


def robust_accuracy(
    network: Network,
    batches: Iterable[Sequence[Tensor]],
    eps: float,
    *,
    norm: Norm = "linf",
    steps: int = 50,
    restarts: int = 10,
    step_size: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> RobustAccuracy:
    """Compute the accuracy under PGD on the cross-entropy: the worst case over all iterates.

    The first restart starts at the image itself, the others at random points. An image that was
    misclassified once is not attacked again. ``steps=10, restarts=1, step_size=eps / 2`` differs
    from the released evaluation of arXiv 2410.10373 only by counting every iterate.

    Source: Madry et al., arXiv 1706.06083; Carlini et al., "On Evaluating Adversarial Robustness",
    arXiv 1902.06705, recommend several restarts and many steps.

    Args:
        network: A function from inputs to logits ``(batch, num_classes)``. A module runs in
            evaluation mode, and its mode is restored.
        batches: Pairs ``(inputs, labels)`` on the network's device.
        eps: The radius in pixel units; for ``eps``, ``norm``, ``mean``, ``std`` and ``clamp`` see
            :class:`ThreatModel`.
        norm: The norm of the perturbation.
        steps: The number of gradients per restart, at least 1.
        restarts: The number of restarts, at least 1.
        step_size: The step size in pixel units, above 0; None means ``2.5 * eps / steps``, with
            which every point of the ball can be reached.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value.
        seed: The seed of the random points of each batch.

    Raises:
        ValueError: An argument is outside its range, the inputs do not fit the threat model, or
            there is no batch.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    check_iterations(steps, restarts, step_size)
    samples = right = withstood = 0
    for number, (inputs, labels) in enumerate(batches):
        generator = torch.Generator(inputs.device).manual_seed(seed + number)
        natural, robust = withstand(
            network, inputs, labels, threat, steps, restarts, step_size, generator
        )
        samples += len(inputs)
        right += int(natural.sum())
        withstood += int(robust.sum())
    if not samples:
        raise ValueError("batches is empty: expected at least one batch of samples")
    return RobustAccuracy(right / samples, withstood / samples, samples)


def withstand(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    steps: int,
    restarts: int,
    step_size: float | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return which samples are correct, without and under attack, as two bool ``(batch,)``."""
    threat.check(inputs)
    step_size = 2.5 * threat.eps / steps if step_size is None else step_size
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(network):
        natural = is_right(network(inputs), labels)
        robust = natural.clone()
        for restart in range(restarts):
            left = robust.nonzero().squeeze(1)
            if not len(left):
                break
            # Indexing copies: autograd cannot save tensors that were created in inference mode.
            watched = _WatchedLoss(network, labels[left])
            clean = inputs[left]
            start = threat.random_point(clean, generator) if restart else clean
            watched(climb(watched, start, clean, threat, step_size, steps))
            robust[left] = watched.withstood
        return natural, robust


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the label has the largest logit, bool ``(batch,)``; False if a logit is NaN.

    Raises:
        ValueError: The logits do not have the shape ``(batch, num_classes)``.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected "
            "(batch, num_classes) and (batch,)"
        )
    return (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)


class _WatchedLoss:
    """The loss that PGD maximizes; it records which samples were misclassified at any iterate."""

    def __init__(self, network: Network, labels: Tensor) -> None:
        self._network = network
        self._labels = labels
        self.withstood = torch.ones_like(labels, dtype=torch.bool)

    def __call__(self, inputs: Tensor) -> Tensor:
        logits = self._network(inputs)
        self.withstood &= is_right(logits.detach(), self._labels)
        return cross_entropy(logits, self._labels, reduction="none")
