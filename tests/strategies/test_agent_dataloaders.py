"""What agents may be given of a loader: a share of all its samples, or nothing without asking."""

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_plugins.datamodules import DirichletPartition, ResumableDataLoader
from lightning_plugins.strategies import SimulatedDecentralizedStrategy
from lightning_plugins.strategies.agent_dataloaders import PartitionSampler, agents_loader

SAMPLES = TensorDataset(torch.arange(24.0), torch.arange(24) % 3)
PARTITION = DirichletPartition(1.0, 6, seed=3)


class Sorted(SequentialSampler):
    """A user's own."""


class OwnBatches(BatchSampler):
    """A user's own."""


class Buckets:
    """Batches of a user's own, which know no sampler."""

    batch_size, drop_last = 4, False

    def __iter__(self):
        return iter([[0, 1], [2, 3]])

    def __len__(self):
        return 2


CHOOSING = {
    "SubsetRandomSampler": SubsetRandomSampler(range(6)),
    "WeightedRandomSampler": WeightedRandomSampler([1.0] * 24, 24),
    "Sorted": Sorted(SAMPLES),
    # The names of plain samplers, with a choice of samples.
    "RandomSampler with replacement": RandomSampler(SAMPLES, replacement=True),
    "RandomSampler of some": RandomSampler(SAMPLES, num_samples=6),
    "RandomSampler among some": RandomSampler(range(6), num_samples=24),
    "SequentialSampler of some": SequentialSampler(range(6)),
}


@pytest.mark.parametrize("data", ["iid", PARTITION], ids=["iid", "partition"])
@pytest.mark.parametrize("name", CHOOSING)
def test_a_sampler_that_chooses_samples_is_never_replaced_silently(name, data):
    told = "'iid'" if data == "iid" else "DirichletPartition"
    message = rf"data={told} would take {name.split()[0]} away.* torch.utils.data.Subset.*'user'"
    alone = DataLoader(SAMPLES, batch_size=2, sampler=CHOOSING[name])
    batches = DataLoader(SAMPLES, batch_sampler=OwnBatches(CHOOSING[name], 2, False))
    for loader in (alone, batches):
        with pytest.raises(ValueError, match=message):
            agents_loader(loader, data, 0, 2, seed=0)
        assert agents_loader(loader, "user", 0, 2, seed=0) is loader


@pytest.mark.parametrize("batches", [BatchSampler(RandomSampler(SAMPLES), 4, False), Buckets()])
def test_a_batch_sampler_that_would_be_dropped_is_refused(batches):
    message = f"would take batch_sampler={type(batches).__name__} away: give the DataLoader batch_s"
    with pytest.raises(ValueError, match=message):
        agents_loader(DataLoader(SAMPLES, batch_sampler=batches), "iid", 0, 2, seed=0)


def test_a_loader_of_batches_through_sampler_is_refused():
    batches = BatchSampler(SequentialSampler(SAMPLES), 4, False)
    with pytest.raises(ValueError, match="would take BatchSampler away"):
        agents_loader(DataLoader(SAMPLES, sampler=batches, batch_size=None), "iid", 0, 2, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(SAMPLES, 4),
        lambda: DataLoader(SAMPLES, 4, shuffle=True),
        lambda: DataLoader(SAMPLES, 4, sampler=RandomSampler(SAMPLES)),
        lambda: DataLoader(SAMPLES, batch_sampler=OwnBatches(SequentialSampler(SAMPLES), 4, False)),
    ],
)
def test_agents_share_all_samples_of_a_plain_loader_in_batches_of_its_size(make):
    shares = [list(agents_loader(make(), "iid", agent, 2, seed=0)) for agent in (0, 1)]
    assert {len(features) for share in shares for features, _ in share} == {4}
    seen = torch.cat([features for share in shares for features, _ in share])
    assert torch.equal(seen.sort().values, SAMPLES.tensors[0])


@pytest.mark.parametrize("order", [SequentialSampler, RandomSampler])
def test_batches_are_shuffled_if_they_were(order):
    loader = DataLoader(SAMPLES, batch_sampler=OwnBatches(order(SAMPLES), 4, False))
    share = torch.cat([features for features, _ in agents_loader(loader, "iid", 1, 2, seed=0)])
    assert torch.equal(share, torch.arange(1.0, 24, 2)) == (order is SequentialSampler)


def test_a_subset_is_divided_within_itself():
    """What the error tells to do."""
    loader = DataLoader(Subset(SAMPLES, range(6)), 3, shuffle=True)
    shares = [agents_loader(loader, "iid", agent, 2, seed=0) for agent in (0, 1)]
    seen = torch.cat([features for share in shares for features, _ in share])
    assert torch.equal(seen.sort().values, torch.arange(6.0))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(SAMPLES, 4, sampler=DistributedSampler(SAMPLES, 2, 0)),
        DataLoader(SAMPLES, 4, sampler=PartitionSampler(SAMPLES.tensors[1], PARTITION, 0, 2, 0)),
        ResumableDataLoader(SAMPLES, 4, world_size=2),
    ],
)
def test_a_loader_that_is_divided_stays_as_it_is(loader):
    assert agents_loader(loader, "iid", 0, 2, seed=0) is loader


class SplitBySampler(Callback):
    """Gives the module the classic split of one dataset into training and validation."""

    def setup(self, trainer, pl_module, stage):
        sampler = SubsetRandomSampler(range(6))
        pl_module.train_dataloader = lambda: DataLoader(harness.samples(), 2, sampler=sampler)


def test_agents_in_processes_refuse_a_split_by_sampler(tmp_path):
    case = {"callbacks": [SplitBySampler()], "may_fail": True}
    results = harness.run_trainers(2, tmp_path, {"case": case})
    for result in results:
        assert "data='iid' would take SubsetRandomSampler away" in result["case"]["error"]


def test_simulated_agents_refuse_a_split_by_sampler(tmp_path):
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        strategy=SimulatedDecentralizedStrategy(2),
        max_epochs=1,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[SplitBySampler()],
    )
    with pytest.raises(ValueError, match="data='iid' would take SubsetRandomSampler away"):
        trainer.fit(harness.Classifier())
