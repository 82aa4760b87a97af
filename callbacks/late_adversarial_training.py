"""Adversarial training, for the whole run or only for its last part."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_plugins._lightning_compat.closures import replace_batches
from lightning_plugins._lightning_compat.processes import model_parallel_sizes
from lightning_plugins.attacks.image import ThreatModel, fgsm, pgd
from lightning_plugins.attacks.image.gradient_attacks import check_iterations
from lightning_plugins.callbacks.batches import element_of, pixel_normalization, with_element
from lightning_plugins.callbacks.extra_passes import classification_loss, under_attack
from lightning_plugins.callbacks.replica_check import trains_replicas
from lightning_plugins.callbacks.training_phase import Phase, PhaseCallback
from lightning_plugins.nn.parallel import share_generator


class LateAdversarialTraining(PhaseCallback):
    """Adversarial training from ``start`` to ``end``, by default in the last quarter of the run.

    ``start=0`` is the adversarial training of Madry et al. (arXiv 1706.06083). Zhou et al. (arXiv
    2410.10373) extend their result on sharpness-aware minimization to it: a few epochs at the end
    of training achieve much of the effect of the whole run. The defaults are their released
    settings: PGD with 10 steps of 2/255 and a random start, L-infinity, eps 4/255, the optimizer
    kept.

    While the callback is active, ``training_step`` receives the batch with adversarial images.
    Other callbacks and hooks receive the loader's batch. The attack calls the module in evaluation
    mode (BatchNorm with running statistics, no dropout) and in the precision of the run. It
    restores modes, buffers, torchmetrics and parameter gradients, and logs nothing. With several
    processes each one attacks its own batch. With :class:`LateSAM` both passes use the same
    adversarial batch. Before ``start`` the run is, bit for bit, the run without the callback.

    The attack maximizes the module's ``loss(images, labels)``, if it has a method with these two
    parameter names, or else the cross-entropy of ``module(images)``. The random start uses torch's
    global generator of the device, whose state ``ExactResume`` saves.

    While active, logs ``adversarial/loss_gap`` at the steps at which the Trainer logs: the attack's
    loss on the adversarial batch minus that on the original batch, in evaluation mode, before the
    optimizer step; the mean over the processes.

    Args:
        start: The beginning, in ``unit``.
        end: The end; None means the end of the run.
        unit: ``fraction`` of the run's optimizer steps, ``epoch``, or optimizer ``step``.
        attack: ``pgd``, or the single step ``fgsm`` (arXiv 1412.6572), which ignores ``step_size``,
            ``steps`` and ``random_start``.
        norm: ``linf``, the largest change of a pixel value, or ``l2``, the Euclidean length of the
            change of an image.
        eps: The radius in pixel units.
        step_size: The step size in pixel units; None means ``eps / 2``.
        steps: The number of gradients per batch.
        random_start: Whether to start at a random point of the ball instead of the image.
        input_key: The index of the images in a batch that is a tuple or list, or their key in a
            dictionary.
        label_key: The index or key of the labels.
        mean: The mean that was subtracted from each channel. If None, the DataModule's ``mean`` and
            ``std`` are used; without them the inputs are treated as pixel values.
        std: The divisor of each channel.
        clamp: The lowest and highest pixel value; ``(-inf, inf)`` for unbounded inputs.

    Raises:
        ValueError: An argument is outside its range, a ``fraction`` is given for an endless run,
            the run ends before ``start``, or a ``fraction`` or ``epoch`` is given and the training
            loader has no length. At the first batch of the run: the images are missing, not
            floating point or outside ``clamp``.
        MisconfigurationException: The module uses manual optimization or a ``dataloader_iter``
            training step, the strategy is FSDP (version 1) or DeepSpeed, or two of these callbacks
            overlap.

    Example::

        trainer = Trainer(max_epochs=200, callbacks=[LateAdversarialTraining(start=0.75)])
    """

    acts = "attack the batches"
    by_hand = "lightning_plugins.attacks.image.pgd"
    supports_shards = ("fsdp2", "tp")
    results = ("first_active_step", "adversarial_batches")

    def __init__(
        self,
        start: float = 0.75,
        end: float | None = None,
        unit: Literal["fraction", "epoch", "step"] = "fraction",
        attack: Literal["pgd", "fgsm"] = "pgd",
        norm: Literal["linf", "l2"] = "linf",
        eps: float = 4 / 255,
        step_size: float | None = None,
        steps: int = 10,
        random_start: bool = True,
        input_key: int | str = 0,
        label_key: int | str = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clamp: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(Phase(start, end, unit))
        if attack not in ("pgd", "fgsm"):
            raise ValueError(f"attack={attack!r}: expected 'pgd' or 'fgsm'")
        if attack == "fgsm" and step_size is not None:
            raise ValueError(f"step_size={step_size}: fgsm takes one step of eps; use attack='pgd'")
        check_iterations(steps, 1, step_size)
        ThreatModel(eps, norm, mean, std, clamp)  # validates the arguments
        self.attack = attack
        self.norm = norm
        self.eps = eps
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        self.input_key = input_key
        self.label_key = label_key
        self.mean = mean
        self.std = std
        self.clamp = clamp
        self.adversarial_batches = 0
        self._threat: ThreatModel | None = None
        self._loss_gap: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the counter; a checkpoint is loaded after this hook."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.adversarial_batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the first and last adversarial step, and intercept the batches."""
        super().on_train_start(trainer, pl_module)
        self._threat = None
        self._release = replace_batches(trainer, partial(self._replace, trainer, pl_module))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check the first batch, so that an error is raised now and not late in the run."""
        if self._threat is not None:
            return
        element_of(batch, self.label_key, "label_key")
        mean, std = pixel_normalization(trainer, self.mean, self.std)
        threat = ThreatModel(self.eps, self.norm, mean, std, self.clamp)
        threat.check(element_of(batch, self.input_key, "input_key"))
        self._threat = threat

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss gap, if it was measured at this step."""
        if self._loss_gap is not None:
            pl_module.log(
                "adversarial/loss_gap", self._loss_gap, sync_dist=trains_replicas(trainer)
            )
            self._loss_gap = None

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the step counter determines whether the callback is active."""
        return {
            "adversarial_batches": self.adversarial_batches,
            "first_active_step": self.first_active_step,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters."""
        self.adversarial_batches = state_dict["adversarial_batches"]
        self.first_active_step = state_dict["first_active_step"]

    def _replace(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> Any:
        step = trainer.global_step
        if not self._lasts_at(step):
            return batch
        images = element_of(batch, self.input_key, "input_key")
        labels = element_of(batch, self.label_key, "label_key")
        loss = classification_loss(pl_module)
        with under_attack(trainer, pl_module):
            adversarial = self._attacked(trainer, lambda x: loss(x, labels), images)
            # This costs two forward passes, so it is measured only at logging steps.
            every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            if every and (step + 1) % every == 0:
                with torch.no_grad():
                    gap = loss(adversarial, labels) - loss(images, labels)
                self._loss_gap = gap.detach().mean()
        self.adversarial_batches += 1
        if self.first_active_step is None:
            self.first_active_step = step
        return with_element(batch, self.input_key, adversarial)

    def _attacked(self, trainer: Trainer, loss: Any, images: Tensor) -> Tensor:
        threat = self._threat
        assert threat is not None
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # As in training, small gradients underflow in half precision without the scale.
        scaled = loss if scaler is None else lambda x: scaler.scale(loss(x))
        pixels: dict[str, Any] = {
            "norm": threat.norm,
            "mean": threat.mean,
            "std": threat.std,
            "clamp": threat.clamp,
            "check_range": False,  # done at the first batch; it synchronizes with the device
        }
        if self.attack == "fgsm":
            return fgsm(scaled, images, self.eps, **pixels)
        if self.random_start and model_parallel_sizes(trainer)["tp"] > 1:
            # Tensor-parallel ranks compute one network: its input has to be the same on all.
            mesh: Any = trainer.strategy.device_mesh  # type: ignore[attr-defined]
            share_generator(mesh["tensor_parallel"], images.device)
        return pgd(
            scaled,
            images,
            self.eps,
            step_size=self.step_size,
            steps=self.steps,
            random_start=self.random_start,
            **pixels,
        )

    def _acted(self) -> str:
        return f"{self.adversarial_batches:,} adversarial batches"

    def _detach(self) -> None:
        super()._detach()
        self._loss_gap = None
