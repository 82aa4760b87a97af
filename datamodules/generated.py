"""Batches that are generated when they are fetched, and still resume exactly."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import Dataset

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.nn.random_state import seeded

_HELD_OUT = {"val": 1, "test": 2}


class GeneratedBatches(Dataset):
    """A dataset whose items are whole batches, each generated when it is fetched.

    Args:
        draw: Generates a batch with torch's global generator.
        num_batches: Batches in the dataset.
        first_seed: Seed of batch 0; batch ``i`` uses ``first_seed + i`` and is the same at every
            fetch. None leaves the seeding to ``ResumableDataLoader``, which derives it from seed,
            epoch, rank and batch, so that every epoch has new batches.
    """

    def __init__(
        self, draw: Callable[[], Any], num_batches: int, first_seed: int | None = None
    ) -> None:
        self.draw = draw
        self.num_batches = num_batches
        self.first_seed = first_seed

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Any:
        if self.first_seed is None:
            return self.draw()
        with seeded(self.first_seed + index):
            return self.draw()


def training_batches(
    trainer: Trainer | None, draw: Callable[[], Any], batches_per_epoch: int, seed: int
) -> ResumableDataLoader:
    """Return a loader of ``batches_per_epoch`` new batches per rank in every epoch.

    Args:
        trainer: Provides rank and world size; None means a single process.
        draw: Generates a batch with torch's global generator.
        batches_per_epoch: Batches per rank.
        seed: Seed of all batches.
    """
    world_size = trainer.world_size if trainer else 1
    batches = GeneratedBatches(draw, batches_per_epoch * world_size)
    return batch_loader(trainer, batches, seed)


def batch_loader(
    trainer: Trainer | None, batches: Dataset | Sequence[Any], seed: int = 0
) -> ResumableDataLoader:
    """Return a loader over a dataset whose items are already batches, in order.

    Args:
        trainer: The ranks of this Trainer share the batches; None gives each process all of them.
        batches: Map-style dataset or list of batches.
        seed: Seed of the generators while a batch is fetched.
    """
    return ResumableDataLoader.for_trainer(
        trainer,
        batches,  # type: ignore[arg-type]
        1,
        shuffle=False,
        seed=seed,
        collate_fn=_only_item,
    )


class GeneratedDataModule(CheckedLoading, LightningDataModule):
    """Online data: training never repeats a sample; validation and test are fixed by the seed.

    Args:
        batch_size: Sequences per batch on each rank.
        steps_per_epoch: Training batches per rank in one epoch.
        eval_batches: Batches of the validation part, and of the test part.
        seed: Seed of all data.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(self, batch_size: int, steps_per_epoch: int, eval_batches: int, seed: int) -> None:
        super().__init__()
        positive = {
            "batch_size": batch_size,
            "steps_per_epoch": steps_per_epoch,
            "eval_batches": eval_batches,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.eval_batches = eval_batches
        self.seed = seed

    def draw(self) -> Any:
        """Generate a batch with torch's global generator."""
        raise NotImplementedError

    def train_dataloader(self) -> ResumableDataLoader:
        """Return a loader of new batches."""
        return training_batches(self.trainer, self.draw, self.steps_per_epoch, self.seed)

    def val_dataloader(self) -> ResumableDataLoader:
        """Return a loader of the same batches at every validation."""
        return self._held_out("val")

    def test_dataloader(self) -> ResumableDataLoader:
        """Return a loader of batches that occur in neither training nor validation."""
        return self._held_out("test")

    def _held_out(self, part: str) -> ResumableDataLoader:
        # Parts and neighbouring seeds do not overlap for fewer than 10^4 batches.
        first_seed = (10 * self.seed + _HELD_OUT[part]) * 10_000
        batches = GeneratedBatches(self.draw, self.eval_batches, first_seed)
        return batch_loader(self.trainer, batches, self.seed)


def _only_item(items: list[Any]) -> Any:
    (item,) = items
    return item
