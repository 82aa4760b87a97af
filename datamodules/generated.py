"""Data that is drawn anew for every batch, and still resumes exactly."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from lightning_plugins.datamodules.resumable import ResumableDataLoader
from lightning_plugins.nn.random_state import seeded

_HELD_OUT = {"val": 1, "test": 2}


class FreshBatches(Dataset):
    """Whole batches, each drawn when it is asked for.

    Args:
        draw: makes a batch, from torch's global generator.
        num_batches: in an epoch.
        seed: where given, batch ``i`` is always the same one; else ``ResumableDataLoader``, which
            seeds the generator from seed, epoch, rank and batch, makes every batch a new one.
    """

    def __init__(
        self, draw: Callable[[], Any], num_batches: int, seed: tuple[int, ...] | None = None
    ) -> None:
        self.draw = draw
        self.num_batches = num_batches
        self.seed = seed

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Any:
        if self.seed is None:
            return self.draw()
        # Seeds that neighbouring seeds and parts do not share, for fewer than 10^4 batches.
        seed, part = self.seed
        with seeded((10 * seed + part) * 10_000 + index):
            return self.draw()


class FreshDataModule(LightningDataModule):
    """Online data: no sample is seen twice; validation and test are fixed by the seed.

    Args:
        batch_size: sequences a batch on each rank.
        steps_per_epoch: training batches of a rank in what Lightning calls an epoch.
        eval_batches: batches of validation, and of test.
        seed: of all data.
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
        """A batch, from torch's global generator."""
        raise NotImplementedError

    def train_dataloader(self) -> ResumableDataLoader:
        """Fresh batches."""
        world_size = self.trainer.world_size if self.trainer else 1
        return self._loader(FreshBatches(self.draw, self.steps_per_epoch * world_size))

    def val_dataloader(self) -> ResumableDataLoader:
        """The same batches at each validation."""
        return self._held_out("val")

    def test_dataloader(self) -> ResumableDataLoader:
        """Batches that neither training nor validation sees."""
        return self._held_out("test")

    def _held_out(self, part: str) -> ResumableDataLoader:
        seed = (self.seed, _HELD_OUT[part])
        return self._loader(FreshBatches(self.draw, self.eval_batches, seed))

    def _loader(self, batches: FreshBatches) -> ResumableDataLoader:
        return ResumableDataLoader.for_trainer(
            self.trainer, batches, 1, shuffle=False, seed=self.seed, collate_fn=_only
        )


def _only(items: list[Any]) -> Any:
    (item,) = items
    return item
