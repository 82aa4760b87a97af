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
    """Batches of similar lengths, in random order, as speech and text loaders make them."""

    batch_size, drop_last = 4, False

    def __init__(self, seed=None):
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __iter__(self):
        batches = [list(range(first, first + 4)) for first in range(0, 24, 4)]
        order = torch.randperm(6, generator=self.generator).tolist()
        return iter([batches[place] for place in order])

    def __len__(self):
        return 6


class Endless:
    """A sampler without a length, as detection libraries use."""

    def __iter__(self):
        while True:
            yield from torch.randperm(24).tolist()


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


@pytest.mark.parametrize("name", SELECTING)
def test_a_partition_refuses_a_sampler_that_selects_samples(name):
    message = (
        rf"data=DirichletPartition would replace {name.split()[0]} .*"
        r"torch.utils.data.Subset.*'iid'.*'user'"
    )
    alone = DataLoader(SAMPLES, batch_size=2, sampler=SELECTING[name])
    batches = DataLoader(SAMPLES, batch_sampler=OwnBatches(SELECTING[name], 2, False))
    for loader in (alone, batches):
        with pytest.raises(ValueError, match=message):
            agent_dataloader(loader, PARTITION, 0, 2, seed=0)
        assert agent_dataloader(loader, "user", 0, 2, seed=0) is loader


@pytest.mark.parametrize("batches", [BatchSampler(RandomSampler(SAMPLES), 4, False), Buckets()])
def test_a_partition_refuses_a_batch_sampler_that_cannot_be_rebuilt(batches):
    message = f"would replace batch_sampler={type(batches).__name__}: pass batch_size"
    with pytest.raises(ValueError, match=message):
        agent_dataloader(DataLoader(SAMPLES, batch_sampler=batches), PARTITION, 0, 2, seed=0)


def shares_of(make, num_agents=2, epochs=1):
    """The batches of each agent in each epoch; each agent has its own loader and generator."""
    shares = []
    for agent in range(num_agents):
        torch.manual_seed(agent)  # agents draw differently, for example for dropout
        loader = agent_dataloader(make(), "iid", agent, num_agents, seed=3)
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)
            shares.append([features.tolist() for features, _ in loader])
    return shares


def seeded_batches():
    return DataLoader(SAMPLES, batch_sampler=Buckets(seed=5))


def plain_loaders():
    """Loaders as people write them."""
    yield "subset", lambda: DataLoader(SAMPLES, 2, sampler=SubsetRandomSampler(range(6)))
    yield "user-defined", lambda: DataLoader(SAMPLES, 2, sampler=Sorted(SAMPLES))
    yield (
        "generator",
        lambda: DataLoader(SAMPLES, 4, shuffle=True, generator=torch.Generator().manual_seed(9)),
    )
    yield "buckets", lambda: DataLoader(SAMPLES, batch_sampler=Buckets())
    yield "seeded buckets", seeded_batches
    yield "batch_size=None", lambda: DataLoader(SAMPLES, batch_size=None, shuffle=True)
    yield (
        "indices of batches",
        lambda: DataLoader(
            SAMPLES, sampler=BatchSampler(RandomSampler(SAMPLES), 4, False), batch_size=None
        ),
    )


@pytest.mark.parametrize(
    ("name", "make"), plain_loaders(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_agents_share_the_items_of_any_sampler_without_overlap(name, make):
    first, second = shares_of(make)
    assert len(first) == len(second)
    flat = torch.cat([torch.tensor(batch).reshape(-1) for batch in (*first, *second)])
    expected = torch.arange(6.0 if name == "subset" else 24.0)
    assert torch.equal(flat.sort().values, expected)


def test_batches_of_a_batch_sampler_stay_together():
    for share in shares_of(seeded_batches, 3):
        assert len(share) == 2
        assert all(batch[-1] - batch[0] == 3 for batch in share)


def test_a_seeded_permutation_is_the_one_that_one_process_sees():
    alone = [features.tolist() for features, _ in seeded_batches()]
    first, second = shares_of(seeded_batches)
    assert [first[0], second[0], first[1], second[1], first[2], second[2]] == alone


def test_epochs_differ_and_depend_only_on_the_seed():
    def make():
        return DataLoader(SAMPLES, 4, shuffle=True)

    zero, one, *_ = shares_of(make, epochs=2)
    assert zero != one
    torch.manual_seed(77)
    assert shares_of(make, epochs=2)[:2] == [zero, one]


def test_the_generators_of_an_agent_are_not_changed_by_the_order():
    torch.manual_seed(1)
    expected = torch.rand(3)
    for sampler in (Endless(), SubsetRandomSampler([1, 2])):
        loader = DataLoader(SAMPLES, 4, sampler=sampler)
        torch.manual_seed(1)
        next(iter(agent_dataloader(loader, "iid", 0, 2, seed=0).sampler))
        assert torch.equal(torch.rand(3), expected)


def test_an_endless_sampler_is_dealt_out_item_by_item():
    loader = DataLoader(SAMPLES, 4, sampler=Endless())
    drawn = []
    for agent in (0, 1):
        items = iter(agent_dataloader(loader, "iid", agent, 2, seed=0).sampler)
        drawn += [next(items) for _ in range(12)]
    assert sorted(drawn) == list(range(24))


@pytest.mark.parametrize("agents", [4, 5])
def test_all_agents_take_as_many_steps_if_the_items_do_not_divide(agents):
    shares = shares_of(seeded_batches, agents)
    assert {len(share) for share in shares} == {2}
    seen = {tuple(batch) for share in shares for batch in share}
    assert len(seen) == 6


def test_weighted_draws_are_refused_with_a_way_out():
    loader = DataLoader(SAMPLES, 4, sampler=WeightedRandomSampler([1.0] * 24, 24))
    with pytest.raises(ValueError, match=r"data='user'.*manual_seed\(trainer.global_rank\)"):
        agent_dataloader(loader, "iid", 0, 2, seed=0)


def test_a_loader_of_a_users_class_keeps_its_class_and_options():
    class OwnLoader(DataLoader):
        def __init__(self, where):
            super().__init__(SAMPLES, 4, shuffle=True, collate_fn=self.collated)
            self.where = where

        def collated(self, items):
            return self.where

    dealt = agent_dataloader(OwnLoader("here"), "iid", 0, 2, seed=0)
    assert type(dealt) is OwnLoader
    assert list(dealt) == ["here"] * 3


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
    second_of_two = torch.arange(24.0).view(-1, 2, 4)[:, 1].reshape(-1)
    assert torch.equal(share, second_of_two) == (order is SequentialSampler)


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


class OrderOfTheRank(Callback):
    """Gives the loader a sampler whose order depends on the agent."""

    def setup(self, trainer, pl_module, stage):
        first = 4 * trainer.global_rank
        sampler = SubsetRandomSampler(range(first, first + 8))
        pl_module.train_dataloader = lambda: DataLoader(harness.samples(), 2, sampler=sampler)


class SplitBySampler(Callback):
    """Splits one dataset into training and validation with a sampler."""

    def setup(self, trainer, pl_module, stage):
        sampler = SubsetRandomSampler(range(6))
        pl_module.train_dataloader = lambda: DataLoader(harness.samples(), 2, sampler=sampler)


def test_agents_in_processes_compare_their_orders(tmp_path):
    cases = {
        "split": {"callbacks": [SplitBySampler()], "module": {"plain": True}},
        "by rank": {"callbacks": [OrderOfTheRank()], "may_fail": True},
    }
    results = harness.run_trainers(2, tmp_path, cases)
    values = harness.samples().tensors[0][:, 0]
    seen = [torch.tensor(result["split"]["seen"]) for result in results]
    assert [len(one) for one in seen] == [6, 6]  # three samples in each of two epochs
    first_epoch = torch.cat([one[:3] for one in seen])
    assert torch.equal(first_epoch.sort().values, values[:6].sort().values)
    for result in results:
        assert "yields another order on agents [1] than on agent 0" in result["by rank"]["error"]
        assert "data='user'" in result["by rank"]["error"]


def test_simulated_agents_share_one_order_with_a_generator_of_the_user(tmp_path):
    class Shuffled(Callback):
        def setup(self, trainer, pl_module, stage):
            generator = torch.Generator().manual_seed(4)
            loader = DataLoader(harness.samples(), 4, shuffle=True, generator=generator)
            pl_module.train_dataloader = lambda: loader  # one object for all agents

    module = harness.Classifier()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        strategy=SimulatedDecentralizedStrategy(3),
        max_epochs=1,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Shuffled()],
    )
    trainer.fit(module)
    values = harness.samples().tensors[0][:, 0]
    assert torch.equal(torch.tensor(module.seen).sort().values, values.sort().values)
