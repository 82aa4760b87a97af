"""What the callbacks that attack a LightningModule ask of it, its DataModule and its Trainer."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins._lightning_compat import metrics_untouched
from lightning_plugins.attacks.evaluation_mode import evaluation_mode
from lightning_plugins.attacks.image import ThreatModel
from lightning_plugins.callbacks.log_silenced import log_silenced
from lightning_plugins.nn.buffers import buffers_untouched


@contextmanager
def under_attack(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Forward passes inside it leave no trace, and are in evaluation mode and the run's precision.

    Modes of all submodules, buffers, torchmetrics and logging are afterwards as they were before.
    """
    with (
        trainer.precision_plugin.forward_context(),
        evaluation_mode(module),
        buffers_untouched(module),
        metrics_untouched(module),
        log_silenced(module),
    ):
        yield


def attack_loss(module: LightningModule) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that an attack raises: the module's ``loss(images, labels)``, or cross-entropy.

    Told by the method's two parameter names, because ``self.loss = nn.CrossEntropyLoss()`` and
    ``def loss(self, logits, labels)`` are common and mean something else. Without it, the
    cross-entropy of ``module(images)``.
    """
    method = getattr(type(module), "loss", None)
    if inspect.isfunction(method):
        names = [name for name in inspect.signature(method).parameters if name != "self"]
        if names == ["images", "labels"]:
            return module.loss  # type: ignore[return-value]
    return lambda images, labels: cross_entropy(module(images), labels)


def threat_model(
    trainer: Trainer,
    eps: float,
    norm: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    clamp: tuple[float, float],
) -> ThreatModel:
    """The threat model; without ``mean`` and ``std``, with the DataModule's, where it has them."""
    if mean is None and std is None:
        datamodule = getattr(trainer, "datamodule", None)
        mean, std = getattr(datamodule, "mean", None), getattr(datamodule, "std", None)
    return ThreatModel(eps, norm, mean, std, clamp)  # type: ignore[arg-type]
