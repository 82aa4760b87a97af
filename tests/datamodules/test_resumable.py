import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import Dataset

from lightning_plugins.datamodules import ResumableDataLoader


class Noisy(Dataset):
    """Its number plus noise from each of the three global generators."""

    def __init__(self, size=23):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        noise = [torch.rand(()).item(), random.random(), float(np.random.rand())]
        return torch.tensor([index, *noise], dtype=torch.float64)


def loader(**arguments):
    return ResumableDataLoader(
        Noisy(), **{"batch_size": 4, "shuffle": True, "seed": 5, **arguments}
    )


def epoch_of(data, epoch):
    data.set_epoch(epoch)
    return list(data)


def assert_same(one, other):
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def numbers(batches):
    return torch.cat([batch[:, 0] for batch in batches]).int().tolist()


def test_each_epoch_visits_every_sample_once_in_a_new_order():
    first, second = (numbers(epoch_of(loader(), epoch)) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second


def test_without_shuffle_samples_come_in_order():
    assert numbers(loader(shuffle=False)) == list(range(23))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resuming_returns_the_rest_of_the_epoch_and_the_following_epochs(num_workers):
    whole = epoch_of(loader(), 3), epoch_of(loader(), 4)
    interrupted = loader(num_workers=num_workers)
    interrupted.set_epoch(3)
    iterator = iter(interrupted)
    taken = [next(iterator), next(iterator)]
    state = interrupted.state_dict()
    taken_so_far = {"batches_taken": 2, "samples_taken": 8, "samples_per_batch": 4}
    assert state == {"epoch": 3, **taken_so_far}

    resumed = loader(num_workers=num_workers)
    resumed.load_state_dict(state)
    assert_same([*taken, *resumed], whole[0])
    assert_same(epoch_of(resumed, 4), whole[1])


def ranks_of(state, batch_size, world_size):
    ranks = [
        loader(batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.load_state_dict(state)
        rank.take_resized_batches()
    return ranks


@pytest.mark.parametrize("sizes", [(4, 1), (8, 1), (3, 1), (5, 1), (2, 2), (1, 4), (3, 3)])
def test_an_epoch_continues_with_other_batches_and_ranks_after_each_interruption(sizes):
    state, seen = {"epoch": 3, "batches_taken": 0}, []
    for batch_size, world_size in [(4, 1), sizes, (2, 1)]:
        ranks = ranks_of(state, batch_size, world_size)
        iterators = [iter(rank) for rank in ranks]
        seen += [next(iterator) for iterator in iterators]
        state = ranks[0].state_dict()
    (last,) = ranks_of(state, 4, 1)
    before = last.state_dict()["batches_taken"]
    rest = list(last)
    assert before + len(rest) == len(last)
    assert sorted(numbers([*seen, *rest])) == list(range(23))


def test_a_batch_size_that_changes_back_gives_the_batches_of_the_uninterrupted_epoch():
    whole = epoch_of(loader(), 3)
    (other,) = ranks_of({"epoch": 3, "batches_taken": 0}, 8, 1)
    next(iter(other))
    (resumed,) = ranks_of(other.state_dict(), 4, 1)
    assert_same(list(resumed), whole[2:])


def test_a_changed_batch_size_is_refused_if_nothing_converts_the_count_of_batches():
    interrupted = loader()
    next(iter(interrupted))
    resumed = loader(batch_size=8)
    resumed.load_state_dict(interrupted.state_dict())
    with pytest.raises(ValueError, match=r"batch_size=8 .*ExactResume"):
        next(iter(resumed))


def test_an_epoch_can_be_interrupted_more_than_once():
    whole = epoch_of(loader(), 3)
    data, taken = loader(), []
    data.set_epoch(3)
    for count in (1, 2, 1):
        batches = iter(data)
        taken += [next(batches) for _ in range(count)]
        state = data.state_dict()
        data = loader()
        data.load_state_dict(state)
    assert_same([*taken, *data], whole)


def test_the_state_of_a_finished_epoch_resumes_in_the_next_epoch():
    finished = loader()
    epoch_of(finished, 0)
    resumed = loader()
    resumed.load_state_dict(finished.state_dict())
    assert_same(epoch_of(resumed, 1), epoch_of(loader(), 1))


def test_augmentation_depends_neither_on_worker_processes_nor_on_the_global_generators():
    torch.manual_seed(1)
    one = epoch_of(loader(num_workers=0), 0)
    torch.manual_seed(2)
    random.seed(2)
    other = epoch_of(loader(num_workers=2), 0)
    assert_same(one, other)


def test_the_global_generators_do_not_change():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    list(loader())
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("size", [24, 23, 22, 2])
def test_ranks_share_the_samples_evenly(size):
    ranks = [
        ResumableDataLoader(Noisy(size), 4, shuffle=True, rank=rank, world_size=3)
        for rank in range(3)
    ]
    shares = [numbers(rank) for rank in ranks]
    assert len({len(share) for share in shares}) == 1
    assert {number for share in shares for number in share} == set(range(size))
    assert sum(map(len, shares)) - size < 3


def test_the_length_is_the_number_of_batches():
    assert len(loader()) == len(list(loader())) == 6
    assert len(loader(drop_last=True)) == len(list(loader(drop_last=True))) == 5


def test_the_epoch_is_passed_to_the_dataset():
    class Told(Noisy):
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

    dataset = Told()
    epoch_of(ResumableDataLoader(dataset, 4), 7)
    assert dataset.epoch == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 30, "drop_last": True}, "batch_size=30 with drop_last"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
    ],
)
def test_errors_name_the_invalid_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        loader(**arguments)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="dataset is empty"):
        ResumableDataLoader(Noisy(0), 4)


def test_the_loader_works_as_a_validation_loader(tmp_path):
    class Learns(BoringModel):
        seen = 0

        def train_dataloader(self):
            return ResumableDataLoader(RandomDataset(32, 8), 4, shuffle=True)

        def val_dataloader(self):
            return ResumableDataLoader(RandomDataset(32, 8), 4)

        def validation_step(self, batch, batch_idx):
            self.seen += len(batch)

    module = Learns()
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module)
    assert module.seen == 8


class Seen(BoringModel):
    def __init__(self):
        super().__init__()
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch.clone())
        return super().training_step(batch, batch_idx)


class Given(LightningDataModule):
    def train_dataloader(self):
        return ResumableDataLoader.for_trainer(self.trainer, RandomDataset(32, 23), 4, seed=5)


def test_overfitting_uses_the_same_batches_in_every_epoch(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    module = Seen()
    trainer = Trainer(
        max_epochs=2, overfit_batches=2, default_root_dir=tmp_path, accelerator="cpu", **quiet
    )
    trainer.fit(module, datamodule=Given())
    assert len(module.batches) == 4
    assert_same(module.batches[:2], module.batches[2:])
