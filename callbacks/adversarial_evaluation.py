"""Accuracy under attack, measured on the batches of a test or validation run."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins.attacks.image import ThreatModel
from lightning_plugins.attacks.image.gradient_attacks import check_iterations
from lightning_plugins.attacks.image.robust_accuracy import withstand
from lightning_plugins.callbacks.batches import element_of, pixel_normalization
from lightning_plugins.callbacks.extra_passes import under_attack
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded


class AdversarialEvaluation(Callback):
    """Logs a classifier's accuracy under PGD, on up to ``num_samples`` test or validation samples.

    An image counts as right if no iterate of any restart is misclassified; the first restart begins
    at the image itself, the others at random points. See
    :func:`lightning_plugins.attacks.image.robust_accuracy`. The module must give logits ``(batch,
    num_classes)``; it is left as it was, global random generators included. The sanity check before
    training is left out.

    The module is called in the run's precision, but with ``16-mixed`` in single precision: in half
    precision the gradients of samples that it is sure of are zero, so that the attack would stand
    still and the module look robust. ``16-true`` has no weights in single precision, and is
    refused.

    Logs ``robust/accuracy`` and, of the same samples unchanged, ``robust/natural_accuracy``, over
    all processes.

    Args:
        stage: which loop: ``test`` or ``validate``, which ``fit`` runs too.
        eps: radius in pixel units.
        norm: ``linf`` or ``l2``.
        steps: gradients for each restart.
        restarts: for images that still are classified right.
        step_size: in pixel units; None is ``2.5 * eps / steps``.
        num_samples: of each data loader, shared by the processes; None takes all.
        input_key: place of the images in a batch that is a tuple or list, or key in a dictionary.
        label_key: of the labels, likewise.
        mean: that was subtracted from each channel; None takes ``mean`` and ``std`` of the
            DataModule, where it has them, else inputs are taken for pixel values.
        std: by which each channel was divided.
        clamp: lowest and highest pixel value.
        seed: of the random points.

    Raises:
        ValueError: an argument outside its range; at the first batch, images that are not there,
            not floating point or not in ``clamp``, or a module that gives no logits.
        MisconfigurationException: a strategy that shards the parameters, or ``16-true``.

    Example::

        trainer = Trainer(callbacks=[AdversarialEvaluation(eps=4 / 255, num_samples=1000)])
        trainer.test(model, datamodule=data)
    """

    def __init__(
        self,
        stage: Literal["test", "validate"] = "test",
        eps: float = 4 / 255,
        norm: Literal["linf", "l2"] = "linf",
        steps: int = 50,
        restarts: int = 10,
        step_size: float | None = None,
        num_samples: int | None = None,
        input_key: int | str = 0,
        label_key: int | str = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clamp: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        if stage not in ("test", "validate"):
            raise ValueError(f"stage={stage!r}: expected 'test' or 'validate'")
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: expected at least 1, or None for all")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        check_iterations(steps, restarts, step_size)
        ThreatModel(eps, norm, mean, std, clamp)  # checks them
        self.stage = stage
        self.eps = eps
        self.norm = norm
        self.steps = steps
        self.restarts = restarts
        self.step_size = step_size
        self.num_samples = num_samples
        self.input_key = input_key
        self.label_key = label_key
        self.mean = mean
        self.std = std
        self.clamp = clamp
        self.seed = seed
        self._samples: Counter[int] = Counter()

    def check(self, trainer: Trainer) -> None:
        """Refuse a Trainer that this callback cannot work in, before anything is prepared."""
        refuse_sharded(trainer, self)
        plugin = trainer.precision_plugin
        if isinstance(plugin, HalfPrecision) and plugin.precision == "16-true":
            raise MisconfigurationException(
                f"{type(self).__name__} does not support precision='16-true': the attack's "
                "gradients would be zero where the module is sure, and it would look robust; use "
                "precision='16-mixed' or '32-true'"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work."""
        self.check(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count samples."""
        self._samples.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack a validation batch."""
        if self.stage == "validate" and not trainer.sanity_checking:
            self._evaluate(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count samples."""
        self._samples.clear()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack a test batch."""
        if self.stage == "test":
            self._evaluate(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def _evaluate(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        images = element_of(batch, self.input_key, "input_key")
        labels = element_of(batch, self.label_key, "label_key")
        if self.num_samples is not None:
            of_this_process = math.ceil(self.num_samples / trainer.world_size)
            left = of_this_process - self._samples[dataloader_idx]
            if left <= 0:
                return
            images, labels = images[:left], labels[:left]
        self._samples[dataloader_idx] += len(images)
        mean, std = pixel_normalization(trainer, self.mean, self.std)
        threat = ThreatModel(self.eps, self.norm, mean, std, self.clamp)
        generator = torch.Generator(pl_module.device).manual_seed(self.seed + batch_idx)
        with under_attack(trainer, pl_module), _without_half_precision(trainer):
            natural, robust = withstand(
                pl_module,
                images,
                labels,
                threat,
                self.steps,
                self.restarts,
                self.step_size,
                generator,
            )
        # Weighted by samples, over batches and processes.
        pl_module.log_dict(
            {
                "robust/accuracy": robust.float().mean(),
                "robust/natural_accuracy": natural.float().mean(),
            },
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(images),
        )


def _without_half_precision(trainer: Trainer) -> AbstractContextManager[Any]:
    """No autocast to float16, below whose smallest number 6e-8 gradients are zero.

    A scaled loss would not do: a factor that fits one sample overflows for another. The exponents
    of bfloat16 are those of float32.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.precision == "16-mixed":
        return torch.autocast(plugin.device, enabled=False)
    return nullcontext()
