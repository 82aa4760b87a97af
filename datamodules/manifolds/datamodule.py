"""Regression of functions with known structure on manifolds of known dimension."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningDataModule
from torch import Generator, Tensor
from torch.utils.data import Dataset

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


class ManifoldDataModule(LightningDataModule):
    """An endless stream of ``(inputs, targets)`` from a manifold: no sample comes twice.

    Batches are float32 ``(batch_size, in_features)`` and ``(batch_size, out_features)``. Training
    batches are drawn when they are asked for, as a function of (seed, epoch, rank, batch), so that
    what is measured is how well a network represents and finds the function, not how it
    generalizes. Validation and test are the same ``evaluation_samples`` points each in every epoch.

    Targets with pieces (``bumps`` and the following of
    :func:`lightning_plugins.nn.moe.targets.build_target`) are defined on the cube, which then is
    ``[0, pieces]^intrinsic_dim``; for the others it is the unit cube.

    Source: Wang and E, arXiv 2505.24205, section 6; the embeddings other than ``zero_pad`` and the
    targets other than ``sine_cosine`` and ``bumps`` are ours.

    Args:
        manifold: ``circle``, ``torus``, ``sphere``, ``swiss_roll`` or ``cube``.
        intrinsic_dim: dimensions of the manifold.
        ambient_dim: dimensions that inputs have.
        embedding: ``zero_pad``, ``rotated`` or ``nonlinear`` (:class:`Embedding`).
        target: the function's name.
        pieces: of a target that has them.
        batch_size: samples a batch on each rank.
        batches_per_epoch: on each rank.
        evaluation_samples: of validation and of test.
        seed: of everything random: target, embedding and samples. With one seed, targets and points
            are the same in every ``ambient_dim``.

    Attributes:
        in_features: of inputs, ``ambient_dim``.
        out_features: of targets.
        target_function: from natural coordinates to targets.

    Raises:
        ValueError: an argument outside its range, or a combination that does not exist.
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
            raise ValueError(f"target={target!r} has pieces of a cube: set manifold='cube'")
        self.manifold = build_manifold(manifold, intrinsic_dim, float(pieces if has_pieces else 1))
        # A generator each, so that the target does not depend on how many dimensions there are.
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
        """Fresh batches, other ones in every epoch."""
        world_size = self.trainer.world_size if self.trainer else 1
        batches = DrawnBatches(self.draw, self.batch_size, self.batches_per_epoch * world_size)
        return ResumableDataLoader.for_trainer(
            self.trainer, batches, 1, shuffle=False, seed=self.seed, collate_fn=_only
        )

    def val_dataloader(self) -> ResumableDataLoader:
        """The validation points, in order."""
        return self._evaluation(2)

    def test_dataloader(self) -> ResumableDataLoader:
        """The test points, in order."""
        return self._evaluation(3)

    def predict_dataloader(self) -> ResumableDataLoader:
        """The test points, in order."""
        return self._evaluation(3)

    def draw(self, number: int, generator: Generator | None = None) -> Batch:
        """Inputs and targets of points drawn from the manifold.

        Args:
            number: of points.
            generator: None draws from torch's global generator.
        """
        points = self.manifold.sample(number, generator)
        return self.embedding(points), self.target_function(points)

    def regions(self, inputs: Tensor) -> Tensor | None:
        """The piece of each input, int64 ``(inputs,)``; None for a target without pieces."""
        return self.target_function.regions(self.embedding.natural(inputs.detach().cpu()))

    def chart(self, inputs: Tensor) -> Tensor:
        """Two coordinates ``(inputs, 2)`` of the manifold, for pictures."""
        return self.manifold.chart(self.embedding.natural(inputs.detach().cpu()))

    def _evaluation(self, stream: int) -> ResumableDataLoader:
        inputs, targets = self.draw(self.evaluation_samples, _generator(self.seed, stream))
        batches = GivenBatches(inputs, targets, _EVALUATION_BATCH)
        return ResumableDataLoader(batches, batch_size=1, collate_fn=_only)


class DrawnBatches(Dataset):
    """Whole batches, drawn from torch's global generator, which ``ResumableDataLoader`` seeds."""

    def __init__(self, draw: Callable[[int], Batch], batch_size: int, number: int) -> None:
        self.draw = draw
        self.batch_size = batch_size
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Batch:
        return self.draw(self.batch_size)


class GivenBatches(Dataset):
    """Consecutive batches of given inputs and targets."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int) -> None:
        pairs = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        self.batches = list(pairs)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def _generator(seed: int, stream: int) -> Generator:
    # Streams of one seed, and the same stream of neighbouring seeds, have nothing in common.
    return torch.Generator().manual_seed(4 * seed + stream)


def _only(batches: list[Batch]) -> Batch:
    (batch,) = batches
    return batch
