"""AutoAttack in the version of the Adversarial Robustness Toolbox."""

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_plugins.attacks.image.robust_accuracy import RobustAccuracy, is_right
from lightning_plugins.attacks.image.threat_model import Norm, ThreatModel
from lightning_plugins.nn.module_state import evaluation_mode
from lightning_plugins.nn.random_state import seeded


def auto_attack_accuracy(
    network: nn.Module,
    batches: Iterable[Sequence[Tensor]],
    eps: float,
    *,
    norm: Norm = "linf",
    square_queries: int = 5000,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    clamp: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> RobustAccuracy:
    """Compute the accuracy under AutoAttack: the worst of APGD, DeepFool and Square Attack.

    APGD is run on two losses. Source: Croce and Hein, arXiv 2003.01690. The Adversarial Robustness
    Toolbox runs AutoAttack without targeted attacks and with DeepFool instead of FAB. Its accuracy
    is therefore comparable with other figures of the toolbox, but not exactly with RobustBench. The
    toolbox converts images to float32 on the CPU. The state of ``network``, including gradients, is
    restored.

    Args:
        network: A function from inputs to logits ``(batch, num_classes)``.
        batches: Pairs ``(inputs, labels)`` on the network's device.
        eps: The radius in pixel units, above 0; for ``eps``, ``norm``, ``mean``, ``std`` and
            ``clamp`` see :class:`ThreatModel`.
        norm: The norm of the perturbation.
        square_queries: The number of queries for each of the 5 restarts of the Square Attack, at
            least 1.
        mean: The mean that was subtracted from the pixels, if the inputs are normalized.
        std: The divisor of the pixels, if the inputs are normalized.
        clamp: The lowest and highest pixel value.
        seed: The seed of the toolbox's random draws.

    Raises:
        ImportError: The toolbox is not installed.
        ValueError: An argument is outside its range, the inputs do not fit the threat model, or
            there is no batch.
    """
    threat = ThreatModel(eps, norm, mean, std, clamp)
    if eps == 0:
        raise ValueError("eps=0: expected more than 0")
    if square_queries < 1:
        raise ValueError(f"square_queries={square_queries}: expected at least 1")
    if importlib.util.find_spec("art") is None:
        raise ImportError("AutoAttack requires: pip install adversarial-robustness-toolbox")
    samples = right = withstood = 0
    with torch.inference_mode(False), torch.enable_grad(), _left_as_found(network), seeded(seed):
        for inputs, labels in batches:
            threat.check(inputs)
            inputs, labels = inputs.detach().clone(), labels.clone()
            found = _generate(network, inputs, labels, threat, square_queries)
            with torch.no_grad(), evaluation_mode(network):
                natural = is_right(network(inputs), labels)
                # Project again, because the toolbox rounds.
                found = threat.project(found, inputs)
                robust = natural & is_right(network(found), labels)
            samples += len(inputs)
            right += int(natural.sum())
            withstood += int(robust.sum())
    if not samples:
        raise ValueError("batches is empty: expected at least one batch of samples")
    return RobustAccuracy(right / samples, withstood / samples, samples)


def _generate(
    network: nn.Module, inputs: Tensor, labels: Tensor, threat: ThreatModel, square_queries: int
) -> Tensor:
    # Imported by name, because most environments do not have it.
    evasion = importlib.import_module("art.attacks.evasion")
    classification = importlib.import_module("art.estimators.classification")
    network_of_pixels = _OfPixels(network, threat, inputs)
    pixels = network_of_pixels.to_pixels(inputs)
    with torch.no_grad(), evaluation_mode(network):
        num_classes = network(inputs[:1]).shape[1]
    classifier = classification.PyTorchClassifier(
        network_of_pixels,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(inputs.shape[1:]),
        nb_classes=num_classes,
        clip_values=threat.clamp,
        device_type="gpu" if inputs.device.type == "cuda" else "cpu",
    )
    norm = "inf" if threat.norm == "linf" else 2
    attack = evasion.AutoAttack(
        classifier, norm=norm, eps=threat.eps, eps_step=threat.eps / 4, batch_size=len(inputs)
    )
    for part in attack.attacks:
        if isinstance(part, evasion.SquareAttack):
            part.set_params(max_iter=square_queries, batch_size=len(inputs), verbose=False)
        else:
            part.set_params(verbose=False)
    found = attack.generate(pixels.cpu().float().numpy(), labels.cpu().numpy())
    return network_of_pixels.to_inputs(torch.from_numpy(found).to(inputs))


class _OfPixels(nn.Module):
    """The network with its normalization in front, because the toolbox works in pixel units."""

    def __init__(self, network: nn.Module, threat: ThreatModel, inputs: Tensor) -> None:
        super().__init__()
        self.network = network
        shape = (-1, *[1] * (inputs.dim() - 2))
        mean, std = threat.mean or [0.0], threat.std or [1.0]
        self._mean = inputs.new_tensor(list(mean)).view(shape)
        self._std = inputs.new_tensor(list(std)).view(shape)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(self.to_inputs(pixels.to(self._mean.dtype)))

    def to_inputs(self, pixels: Tensor) -> Tensor:
        return (pixels - self._mean) / self._std

    def to_pixels(self, inputs: Tensor) -> Tensor:
        return inputs * self._std + self._mean


@contextmanager
def _left_as_found(network: nn.Module) -> Iterator[None]:
    """Restore modes and gradients of parameters, which the toolbox changes."""
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with evaluation_mode(network):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
