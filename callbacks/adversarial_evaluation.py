"""Measures the accuracy of a classifier under attack during a test or validation run."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.attacks.image import ThreatModel
from lightning_plugins.attacks.image.gradient_attacks import check_iterations
from lightning_plugins.attacks.image.robust_accuracy import withstand
from lightning_plugins.callbacks.batches import element_of, pixel_normalization
from lightning_plugins.callbacks.extra_passes import under_attack
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.shards import gathered


class AdversarialEvaluation(PluginCallback):
    """Logs a classifier's accuracy under PGD on up to ``num_samples`` test or validation samples.

    An image counts as correct if no iterate of any restart is misclassified. The first restart
    starts at the image itself, the others at random points. See
    :func:`lightning_plugins.attacks.image.robust_accuracy`. The module must return logits ``(batch,
    num_classes)``. The callback restores the module and the global random generators. It skips the
    sanity check before training.

    The module runs in the precision of the run, except that ``16-mixed`` is replaced by single
    precision. In half precision the gradients of confidently classified samples underflow to zero,
    so the attack would make no progress and the module would appear robust. ``16-true`` has no
    weights in single precision and is refused.

    Logs ``robust/accuracy`` and, for the same unchanged samples, ``robust/natural_accuracy``, over
    all processes. Under FSDP2 each process holds all weights during an attack, because the number
    of its passes depends on the samples.

    Args:
        stage: The loop to measure in: ``test``, or ``validate``, which ``fit`` also runs.
        eps: The radius in pixel units.
        norm: ``linf`` or ``l2``.
        steps: The number of gradients per restart.
        restarts: The number of restarts for images that are still classified correctly.
        step_size: The step size in pixel units; None means ``2.5 * eps / steps``.
        num_samples: The number of samples of each data loader, over all processes; None means all.
        input_key: The index of the images in a batch that is a tuple or list, or their key in a
            dictionary.
        label_key: The index or key of the labels.
        mean: The mean that was subtracted from each channel. If None, the DataModule's ``mean`` and
            ``std`` are used; without them the inputs are treated as pixel values.
        std: The divisor of each channel.
        clamp: The lowest and highest pixel value.
        seed: The seed of the random points.

    Raises:
        ValueError: An argument is outside its range. At the first batch: the images are missing,
            not floating point or outside ``clamp``, or the module does not return logits.
        MisconfigurationException: The strategy is FSDP (version 1) or DeepSpeed, or the precision
            is ``16-true``.

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
        ThreatModel(eps, norm, mean, std, clamp)  # validates the arguments
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
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp"))
        plugin = trainer.precision_plugin
        if isinstance(plugin, HalfPrecision) and plugin.precision == "16-true":
            raise MisconfigurationException(
                f"{type(self).__name__} does not support precision='16-true': gradients of "
                "confident predictions underflow to zero, so the module would appear robust; use "
                "precision='16-mixed' or '32-true'"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations."""
        self.check(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the number of samples."""
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
        """Reset the number of samples."""
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
            of_this_process = math.ceil(self.num_samples / data_share(trainer)[1])
            left = of_this_process - self._samples[dataloader_idx]
            if left <= 0:
                return
            images, labels = images[:left], labels[:left]
        self._samples[dataloader_idx] += len(images)
        mean, std = pixel_normalization(trainer, self.mean, self.std)
        threat = ThreatModel(self.eps, self.norm, mean, std, self.clamp)
        generator = torch.Generator(pl_module.device).manual_seed(self.seed + batch_idx)
        with (
            under_attack(trainer, pl_module),
            gathered(pl_module),
            _without_half_precision(trainer),
        ):
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
        # Weighted by the number of samples, over batches and processes.
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
    """Disable autocast to float16, in which gradients below 6e-8 underflow to zero.

    Scaling the loss does not help: a factor that fits one sample overflows for another. bfloat16
    needs no such treatment, because it has the exponents of float32.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.precision == "16-mixed":
        return torch.autocast(plugin.device, enabled=False)
    return nullcontext()
