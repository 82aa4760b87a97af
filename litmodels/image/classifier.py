"""Image classification with any network, optimizer and schedule."""

import re
from functools import partial
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torchmetrics.classification import MulticlassAccuracy

from lightning_plugins.checkpoints import CheckedLoading, CheckpointStrings
from lightning_plugins.nn.image import build_image_network
from lightning_plugins.optimizers import configure_optimizers

Batch = tuple[Tensor, Tensor]


class ImageClassifier(CheckedLoading, LightningModule):
    """Trains a network on ``(images, labels)`` batches by cross-entropy.

    Images have the shape ``(batch, in_channels, image_size, image_size)``, labels are class numbers
    ``(batch,)``. Logged: ``train/loss`` (the smoothed training loss, per step as
    ``train/loss_step`` and per epoch as ``train/loss_epoch``), ``train/accuracy``, ``val/loss``,
    ``val/accuracy``, ``test/loss`` and ``test/accuracy``. Validation and test losses are not
    smoothed. ``predict_step`` returns class probabilities ``(batch, num_classes)``.

    Args:
        network: Name for :func:`lightning_plugins.nn.image.build_image_network`.
        num_classes: Number of classes; must match the DataModule's.
        in_channels: Channels of the images.
        image_size: Height and width in pixels.
        label_smoothing: Fraction of the target distributed over all classes, in [0, 1).
        dropout: Dropout probability, for networks with dropout.
        pretrained: Start from timm's published weights.
        optimizer: Builds the optimizer from the parameters. Strategies that spawn processes require
            a picklable one: a partial or YAML, not a lambda like the default.
        lr_scheduler: Builds the schedule from the optimizer. An argument ``total_steps`` is set to
            the length of the run.

    Raises:
        ValueError: An argument is outside its range, or the network does not support it.

    Example::

        model = ImageClassifier("resnet20", optimizer=partial(torch.optim.SGD, lr=0.05))
        Trainer(max_epochs=10).fit(model, datamodule=ImageDataModule("cifar10"))
    """

    # Models of timm, but none of its prefixes for folders and hubs.
    checkpoint_strings: ClassVar[CheckpointStrings] = {
        "network": re.compile(r"\w{1,80}(\.\w{1,80})?", re.ASCII)
    }

    def __init__(
        self,
        network: str = "resnet20",
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        pretrained: bool = False,
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.1, momentum=0.9),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a fraction in [0, 1)")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network = build_image_network(
            network,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            dropout=dropout,
            pretrained=pretrained,
        )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        # Argument validation would synchronize with the host; cross-entropy checks labels anyway.
        accuracy = partial(MulticlassAccuracy, num_classes, average="micro", validate_args=False)
        self.train_accuracy = accuracy()
        self.val_accuracy = accuracy()
        self.test_accuracy = accuracy()

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(batch, num_classes)`` of ``images``."""
        return self.network(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean cross-entropy without smoothing, for sharpness and attacks."""
        return cross_entropy(self(images), labels)

    def setup(self, stage: str) -> None:
        """Refuse data with another number of classes."""
        datamodule = getattr(self.trainer, "datamodule", None)
        num_classes = getattr(datamodule, "num_classes", None)
        if num_classes is not None and num_classes != self.num_classes:
            raise ValueError(
                f"num_classes={self.num_classes}: {type(datamodule).__name__} has {num_classes} "
                f"classes; set the model's num_classes to {num_classes}"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the smoothed loss of a batch."""
        images, labels = batch
        logits = self(images)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.train_accuracy.update(logits, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy over the validation set."""
        self._evaluate("val", self.val_accuracy, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy over the test set."""
        self._evaluate("test", self.test_accuracy, batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Compute class probabilities ``(batch, num_classes)`` of images with or without labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=-1)

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and its schedule with the matching interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _evaluate(self, stage: str, accuracy: MulticlassAccuracy, batch: Batch) -> None:
        images, labels = batch
        logits = self(images)
        accuracy.update(logits, labels)
        self.log(f"{stage}/loss", cross_entropy(logits, labels), sync_dist=True, prog_bar=True)
        self.log(f"{stage}/accuracy", accuracy, prog_bar=True)
