"""Dividing a user's loader among agents, and the loaders that are refused."""

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
from lightning_plugins.strategies.agent_dataloaders import PartitionSampler, agent_dataloader

SAMPLES = TensorDataset(torch.arange(24.0), torch.arange(24) % 3)
PARTITION = DirichletPartition(1.0, 6, seed=3)


class Sorted(SequentialSampler):
    """A user-defined sampler."""


class OwnBatches(BatchSampler):
    """A user-defined batch sampler that Lightning can rebuild."""


class Buckets:
    """A user-defined batch sampler without an inner sampler."""

    batch_size, drop_last = 4, False

    def __iter__(self):
        return iter([[0, 1], [2, 3]])

    def __len__(self):
        return 2


SELECTING = {
    "SubsetRandomSampler": SubsetRandomSampler(range(6)),
    "WeightedRandomSampler": WeightedRandomSampler([1.0] * 24, 24),
    "Sorted": Sorted(SAMPLES),
    # Classes of torch that are refused only because of their arguments.
    "RandomSampler with replacement": RandomSampler(SAMPLES, replacement=True),
    "RandomSampler of some": RandomSampler(SAMPLES, num_samples=6),
    "RandomSampler among some": RandomSampler(range(6), num_samples=24),
    "SequentialSampler of some": SequentialSampler(range(6)),
}


@pytest.mark.parametrize("data", ["iid", PARTITION], ids=["iid", "partition"])
@pytest.mark.parametrize("name", SELECTING)
def test_a_sampler_that_selects_samples_is_refused(name, data):
    named = "'iid'" if data == "iid" else "DirichletPartition"
    message = rf"data={named} would replace {name.split()[0]} .* torch.utils.data.Subset.*'user'"
    alone = DataLoader(SAMPLES, batch_size=2, sampler=SELECTING[name])
    batches = DataLoader(SAMPLES, batch_sampler=OwnBatches(SELECTING[name], 2, False))
    for loader in (alone, batches):
        with pytest.raises(ValueError, match=message):
            agent_dataloader(loader, data, 0, 2, seed=0)
        assert agent_dataloader(loader, "user", 0, 2, seed=0) is loader


@pytest.mark.parametrize("batches", [BatchSampler(RandomSampler(SAMPLES), 4, False), Buckets()])
def test_a_batch_sampler_that_cannot_be_rebuilt_is_refused(batches):
    message = f"would replace batch_sampler={type(batches).__name__}: pass batch_size"
    with pytest.raises(ValueError, match=message):
        agent_dataloader(DataLoader(SAMPLES, batch_sampler=batches), "iid", 0, 2, seed=0)


def test_a_sampler_that_yields_batches_is_refused():
    batches = BatchSampler(SequentialSampler(SAMPLES), 4, False)
    with pytest.raises(ValueError, match="would replace BatchSampler"):
        agent_dataloader(DataLoader(SAMPLES, sampler=batches, batch_size=None), "iid", 0, 2, seed=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DataLoader(SAMPLES, 4),
        lambda: DataLoader(SAMPLES, 4, shuffle=True),
        lambda: DataLoader(SAMPLES, 4, sampler=RandomSampler(SAMPLES)),
        lambda: DataLoader(SAMPLES, batch_sampler=OwnBatches(SequentialSampler(SAMPLES), 4, False)),
    ],
)
def test_agents_share_all_samples_of_a_plain_loader_with_its_batch_size(make):
    shares = [list(agent_dataloader(make(), "iid", agent, 2, seed=0)) for agent in (0, 1)]
    assert {len(features) for share in shares for features, _ in share} == {4}
    seen = torch.cat([features for share in shares for features, _ in share])
    assert torch.equal(seen.sort().values, SAMPLES.tensors[0])


@pytest.mark.parametrize("order", [SequentialSampler, RandomSampler])
def test_shares_are_shuffled_if_the_loader_was(order):
    loader = DataLoader(SAMPLES, batch_sampler=OwnBatches(order(SAMPLES), 4, False))
    share = torch.cat([features for features, _ in agent_dataloader(loader, "iid", 1, 2, seed=0)])
    assert torch.equal(share, torch.arange(1.0, 24, 2)) == (order is SequentialSampler)


def test_a_subset_is_divided_among_agents():
    """The remedy that the error message recommends."""
    loader = DataLoader(Subset(SAMPLES, range(6)), 3, shuffle=True)
    shares = [agent_dataloader(loader, "iid", agent, 2, seed=0) for agent in (0, 1)]
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
def test_a_divided_loader_is_returned_unchanged(loader):
    assert agent_dataloader(loader, "iid", 0, 2, seed=0) is loader


class SplitBySampler(Callback):
    """Splits one dataset into training and validation with a sampler."""

    def setup(self, trainer, pl_module, stage):
        sampler = SubsetRandomSampler(range(6))
        pl_module.train_dataloader = lambda: DataLoader(harness.samples(), 2, sampler=sampler)


def test_agents_in_processes_refuse_a_split_by_sampler(tmp_path):
    case = {"callbacks": [SplitBySampler()], "may_fail": True}
    results = harness.run_trainers(2, tmp_path, {"case": case})
    for result in results:
        assert "data='iid' would replace SubsetRandomSampler" in result["case"]["error"]


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
    with pytest.raises(ValueError, match="data='iid' would replace SubsetRandomSampler"):
        trainer.fit(harness.Classifier())
