"""Accuracy of a network on the worst images that an adversary finds."""

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
    """What :func:`robust_accuracy` and :func:`auto_attack_accuracy` measured.

    Attributes:
        natural: share of the unchanged images that is classified right.
        robust: share that is classified right whatever the attack tried; at most ``natural``.
        num_samples: images.
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
    """Accuracy under PGD on the cross-entropy: the worst case over all iterates of all restarts.

    The first restart begins at the image itself, the others at random points; an image that was
    misclassified once is not attacked again. ``steps=10, restarts=1, step_size=eps / 2`` differs
    from the released evaluation of arXiv 2410.10373 only in counting every iterate.

    Source: Madry et al., arXiv 1706.06083; several restarts and many steps as Carlini et al.,
    "On Evaluating Adversarial Robustness", arXiv 1902.06705, advise.

    Args:
        network: from inputs to logits ``(batch, num_classes)``; a module is put in evaluation mode
            and back.
        batches: ``(inputs, labels)`` pairs on the network's device.
        eps: radius in pixel units, with ``norm``, ``mean``, ``std`` and ``clamp``: see
            :class:`ThreatModel`.
        norm: of the perturbation.
        steps: gradients for each restart, at least 1.
        restarts: at least 1.
        step_size: in pixel units, > 0; None is ``2.5 * eps / steps``, so that all of the ball is
            reached.
        mean: where inputs are normalized.
        std: where inputs are normalized.
        clamp: lowest and highest pixel value.
        seed: of the random points of each batch.

    Raises:
        ValueError: an argument outside its range, inputs of another kind, or no batch.
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
    """Which samples of a batch are right, unchanged and under attack: two bool ``(batch,)``."""
    threat.check(inputs)
    step_size = 2.5 * threat.eps / steps if step_size is None else step_size
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(network):
        natural = is_right(network(inputs), labels)
        robust = natural.clone()
        for restart in range(restarts):
            left = robust.nonzero().squeeze(1)
            if not len(left):
                break
            # Copies, which autograd may keep where the originals were made in inference mode.
            watched = _WatchedLoss(network, labels[left])
            clean = inputs[left]
            start = threat.random_point(clean, generator) if restart else clean
            watched(climb(watched, start, clean, threat, step_size, steps))
            robust[left] = watched.withstood
        return natural, robust


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the largest logit is the label's; not where one is not a number: bool ``(batch,)``.

    Raises:
        ValueError: logits that are not ``(batch, num_classes)``.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: expected "
            "(batch, num_classes) and (batch,)"
        )
    return (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)


class _WatchedLoss:
    """The loss that is climbed, which notes every iterate that is misclassified."""

    def __init__(self, network: Network, labels: Tensor) -> None:
        self._network = network
        self._labels = labels
        self.withstood = torch.ones_like(labels, dtype=torch.bool)

    def __call__(self, inputs: Tensor) -> Tensor:
        logits = self._network(inputs)
        self.withstood &= is_right(logits.detach(), self._labels)
        return cross_entropy(logits, self._labels, reduction="none")
