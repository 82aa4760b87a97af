"""Checks whether a network masks its gradients instead of being robust."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.attacks.image.gradient_attacks import climb, pgd
from lightning_plugins.attacks.image.random_search import random_search
from lightning_plugins.attacks.image.robust_accuracy import Network, is_right, withstand
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel
from lightning_plugins.nn.module_state import evaluation_mode

_LOSS_MAY_FALL = 0.05  # share of the whole rise; sign steps oscillate at the boundary
_ACCURACY_MAY_STAY = 0.01


@dataclass(frozen=True)
class GradientMasking:
    """The measurements of :func:`check_gradient_masking` and the results of its three checks.

    Attributes:
        accuracy_by_eps: Pairs of the radius in pixel units and the accuracy under PGD.
        loss_by_steps: Pairs of the number of PGD steps, from 0, and the mean cross-entropy.
        white_box_accuracy: The accuracy under PGD.
        black_box_accuracy: The accuracy under each attack that does not use the network's
            gradients: ``random_search``, and ``transfer`` if there is a surrogate.
    """

    accuracy_by_eps: tuple[tuple[float, float], ...]
    loss_by_steps: tuple[tuple[int, float], ...]
    white_box_accuracy: float
    black_box_accuracy: dict[str, float]

    @property
    def accuracy_vanishes(self) -> bool:
        """Whether the accuracy is at most 1 % when any image can become any other."""
        return self.accuracy_by_eps[-1][1] <= _ACCURACY_MAY_STAY

    @property
    def loss_rises(self) -> bool:
        """Whether the loss rises with the steps and never falls by more than 5 % of its rise."""
        losses = [loss for _, loss in self.loss_by_steps]
        rise = max(losses) - losses[0]
        falls = (before - after for before, after in itertools.pairwise(losses))
        return rise > 0 and max(falls) <= _LOSS_MAY_FALL * rise

    @property
    def white_box_is_strongest(self) -> bool:
        """Whether no attack without gradients lowers the accuracy below that under PGD."""
        return self.white_box_accuracy <= min(self.black_box_accuracy.values())

    @property
    def is_suspected(self) -> bool:
        """Whether a check fails, in which case the robust accuracy is not reliable."""
        return not (self.accuracy_vanishes and self.loss_rises and self.white_box_is_strongest)


def check_gradient_masking(
    network: Network,
    inputs: Tensor,
    labels: Tensor,
    eps: float,
    *,
    norm: Norm = "linf",
    steps: int = 20,
    restarts: int = 2,
    queries: int = 200,
    surrogate: Network | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> GradientMasking:
    """Run three checks that a valid evaluation passes, on a batch of a few hundred samples or more.

    The accuracy must go to 0 as ``eps`` grows to the whole range; the loss must rise with the
    number of steps; attacks without gradients must not be stronger than the attack with gradients.
    Passing the checks proves nothing. If a check fails, the attack failed, and the network is not
    necessarily robust.

    Source: Athalye, Carlini and Wagner, arXiv 1802.00420; Carlini et al., arXiv 1902.06705.

    Args:
        network: A function from inputs to logits ``(batch, num_classes)``.
        inputs: Floating-point tensor ``(batch, channels, height, width)``.
        labels: Class numbers, ``(batch,)``.
        eps: The radius in pixel units, above 0; see :class:`ThreatModel`.
        norm: The norm of the perturbation.
        steps: The number of PGD steps, at least 1.
        restarts: The number of PGD restarts, at least 1.
        queries: The number of queries of the random search, at least 1.
        surrogate: Another network for the same task, whose adversarial images are also tried.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value, both finite.
        seed: The seed of all random draws.

    Raises:
        ValueError: An argument is outside its range, or the inputs do not fit the threat model.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    if eps == 0:
        raise ValueError("eps=0: expected more than 0")
    options: dict[str, Any] = {"norm": norm, "mean": mean, "std": std, "clamp": clamp}
    with torch.inference_mode(False), torch.no_grad():
        inputs, labels = inputs.detach().clone(), labels.clone()
        generator = torch.Generator(inputs.device).manual_seed(seed)

        def accuracy_under_pgd(radius: float) -> float:
            ball = ThreatModel(radius, norm, mean, std, clamp)
            _, robust = withstand(
                network, inputs, labels, ball, steps, restarts, None, generator.manual_seed(seed)
            )
            return robust.double().mean().item()

        def accuracy(perturbed: Tensor) -> float:
            with evaluation_mode(network):
                right = [is_right(network(images), labels) for images in (inputs, perturbed)]
            return (right[0] & right[1]).double().mean().item()

        def loss_of(network: Network) -> "_SampleLoss":
            return _SampleLoss(network, labels)

        radii = _radii(threat, inputs)
        with evaluation_mode(network):
            found = random_search(
                loss_of(network), inputs, eps, queries=queries, generator=generator, **options
            )
        black_box = {"random_search": accuracy(found)}
        if surrogate is not None:
            with evaluation_mode(surrogate):
                found = pgd(
                    loss_of(surrogate),
                    inputs,
                    eps,
                    steps=steps,
                    restarts=restarts,
                    generator=generator,
                    **options,
                )
            black_box["transfer"] = accuracy(found)
        by_eps = tuple((radius, accuracy_under_pgd(radius)) for radius in radii)
        return GradientMasking(
            accuracy_by_eps=by_eps,
            loss_by_steps=_loss_by_steps(network, inputs, labels, threat, steps),
            white_box_accuracy=dict(by_eps)[eps],
            black_box_accuracy=black_box,
        )


def _radii(threat: ThreatModel, inputs: Tensor) -> list[float]:
    """Return 0, eps, 2 eps and so on, up to the radius at which any image can become any other."""
    low, high = threat.clamp
    largest = high - low
    if threat.norm == "l2":
        largest *= inputs[:1].numel() ** 0.5
    if not largest < float("inf"):
        raise ValueError(f"clamp={threat.clamp}: expected two finite pixel values")
    radii = [0.0]
    radius = threat.eps
    while radius < largest:
        radii.append(radius)
        radius *= 2
    return [*radii, largest]


def _loss_by_steps(
    network: Network, inputs: Tensor, labels: Tensor, threat: ThreatModel, steps: int
) -> tuple[tuple[int, float], ...]:
    loss = _SampleLoss(network, labels)
    perturbed = inputs
    with evaluation_mode(network):
        losses = [loss(perturbed).mean().item()]
        for _ in range(steps):
            perturbed = climb(loss, perturbed, inputs, threat, 2.5 * threat.eps / steps, 1)
            losses.append(loss(perturbed).mean().item())
    return tuple(enumerate(losses))


class _SampleLoss:
    """The cross-entropy of each sample."""

    def __init__(self, network: Network, labels: Tensor) -> None:
        self._network = network
        self._labels = labels

    def __call__(self, inputs: Tensor) -> Tensor:
        return cross_entropy(self._network(inputs), self._labels, reduction="none")
