"""Regression data: functions of known structure on manifolds of known dimension."""

from functools import partial

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.generated import batch_loader, training_batches
from lightning_plugins.datamodules.manifolds.manifolds import (
    Embedding,
    EmbeddingName,
    ManifoldName,
    build_manifold,
)
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.nn.moe.targets import ON_CUBES, TargetName, build_target

Batch = tuple[Tensor, Tensor]
_EVALUATION_BATCH = 1024


class ManifoldDataModule(CheckedLoading, LightningDataModule):
    """An endless stream of ``(inputs, targets)`` from a manifold; samples never repeat.

    Batches are float32 ``(batch_size, in_features)`` and ``(batch_size, out_features)``. Training
    batches are drawn on demand as a function of (seed, epoch, rank, batch). The error therefore
    measures how well a network finds and represents the function, not how well it generalizes.
    Validation and test use ``evaluation_samples`` fixed points each.

    Targets with pieces (``bumps`` and the following ones in
    :func:`lightning_plugins.nn.moe.targets.build_target`) require the cube
    ``[0, pieces]^intrinsic_dim``; for all other targets ``cube`` is the unit cube.

    Source: Wang and E, arXiv 2505.24205, section 6; the embeddings other than ``zero_pad`` and the
    targets other than ``sine_cosine`` and ``bumps`` are ours.

    Args:
        manifold: ``circle``, ``torus``, ``sphere``, ``swiss_roll`` or ``cube``.
        intrinsic_dim: Dimension of the manifold.
        ambient_dim: Dimension of the inputs.
        embedding: ``zero_pad``, ``rotated`` or ``nonlinear`` (:class:`Embedding`).
        target: Name of the function.
        pieces: Number of pieces, for a target that has pieces.
        batch_size: Samples per batch on each rank.
        batches_per_epoch: Training batches per rank.
        evaluation_samples: Points in validation, and in test.
        seed: Seed of target, embedding and samples. With the same seed, targets and points are the
            same for every ``ambient_dim``.

    Attributes:
        in_features: Features of an input, equal to ``ambient_dim``.
        out_features: Features of a target.
        target_function: Maps natural coordinates to targets.

    Raises:
        ValueError: An argument is outside its range, or the combination does not exist.
    """

    def __init__(
        self,
        manifold: ManifoldName = "circle",
        intrinsic_dim: int = 1,
        ambient_dim: int = 16,
        embedding: EmbeddingName = "zero_pad",
        target: TargetName = "sine_cosine",
        pieces: int = 4,
        batch_size: int = 512,
        batches_per_epoch: int = 100,
        evaluation_samples: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__()
        positive = {
            "batch_size": batch_size,
            "batches_per_epoch": batches_per_epoch,
            "evaluation_samples": evaluation_samples,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        if intrinsic_dim > ambient_dim:
            raise ValueError(
                f"intrinsic_dim={intrinsic_dim}: expected at most ambient_dim={ambient_dim}"
            )
        has_pieces = target in ON_CUBES
        if has_pieces and manifold != "cube":
            raise ValueError(f"target={target!r} is defined on a cube: set manifold='cube'")
        self.manifold = build_manifold(manifold, intrinsic_dim, float(pieces if has_pieces else 1))
        # Separate generators make the target independent of the number of dimensions.
        features = self.manifold.features
        self.target_function = build_target(target, features, pieces, _generator(seed, 0))
        self.embedding = Embedding(embedding, features, ambient_dim, _generator(seed, 1))
        self.in_features = ambient_dim
        self.out_features = self.target_function.out_features
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.evaluation_samples = evaluation_samples
        self.seed = seed

    def train_dataloader(self) -> ResumableDataLoader:
        """Return a loader of new batches in every epoch."""
        draw = partial(self.draw, self.batch_size)
        return training_batches(self.trainer, draw, self.batches_per_epoch, self.seed)

    def val_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the validation points, in order."""
        return self._evaluation(2)

    def test_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the test points, in order."""
        return self._evaluation(3)

    def predict_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the test points, in order."""
        return self._evaluation(3)

    def draw(self, number: int, generator: Generator | None = None) -> Batch:
        """Draw points on the manifold and return inputs and targets.

        Args:
            number: Number of points.
            generator: Random generator; None uses torch's global generator.
        """
        points = self.manifold.sample(number, generator)
        return self.embedding(points), self.target_function(points)

    def regions(self, inputs: Tensor) -> Tensor | None:
        """Return the piece of each input, int64 ``(inputs,)``, or None if there are no pieces."""
        return self.target_function.regions(self.embedding.natural(inputs.detach().cpu()))

    def chart(self, inputs: Tensor) -> Tensor:
        """Return two coordinates ``(inputs, 2)`` on the manifold for plots."""
        return self.manifold.chart(self.embedding.natural(inputs.detach().cpu()))

    def _evaluation(self, stream: int) -> ResumableDataLoader:
        inputs, targets = self.draw(self.evaluation_samples, _generator(self.seed, stream))
        pairs = zip(inputs.split(_EVALUATION_BATCH), targets.split(_EVALUATION_BATCH), strict=True)
        return batch_loader(None, list(pairs))


def _generator(seed: int, stream: int) -> Generator:
    # Neither the streams of one seed nor those of neighbouring seeds coincide.
    return torch.Generator().manual_seed(4 * seed + stream)
