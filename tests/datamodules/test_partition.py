import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from lightning_plugins.datamodules import DirichletPartition
from lightning_plugins.datamodules.partition import (
    PartitionedDataModule,
    PartitionedDataset,
    stratified_order,
)

LABELS = torch.arange(1000) % 10
MODES = ("resample", "fixed", "disjoint")


def class_shares(indices: torch.Tensor, num_classes: int = 10) -> torch.Tensor:
    return torch.bincount(LABELS[indices], minlength=num_classes) / len(indices)


class World:
    """The attributes of a Trainer that a loader reads."""

    overfit_batches = 0.0

    def __init__(self, global_rank: int, world_size: int) -> None:
        self.global_rank = global_rank
        self.world_size = world_size


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=24, max_size=60),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    samples=st.integers(1, 6),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 5),
)
def test_every_agent_gets_the_same_number_of_valid_samples(labels, alpha, samples, mode, seed):
    labels = torch.tensor(labels)
    partition = DirichletPartition(alpha, samples, mode, seed)
    shares = [partition.indices(labels, rank, 4, epoch=1) for rank in range(4)]
    assert all(len(share) == samples and share.dtype == torch.int64 for share in shares)
    together = torch.cat(shares)
    assert together.min() >= 0
    assert together.max() < len(labels)
    if mode == "disjoint":
        assert len(together.unique()) == 4 * samples


def test_disjoint_shares_can_cover_the_whole_dataset():
    partition = DirichletPartition(0.05, 250, "disjoint")
    together = torch.cat([partition.indices(LABELS, rank, 4) for rank in range(4)])
    assert torch.equal(together.sort().values, torch.arange(1000))


@pytest.mark.parametrize("mode", MODES)
def test_shares_depend_on_seed_rank_and_epoch_alone(mode):
    partition = DirichletPartition(0.5, 100, mode, seed=3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = partition.indices(LABELS, 2, 4, epoch=5)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    again = DirichletPartition(0.5, 100, mode, seed=3).indices(LABELS, 2, 4, epoch=5)
    assert torch.equal(first, again)
    assert not torch.equal(first, partition.indices(LABELS, 1, 4, epoch=5))
    other_seed = DirichletPartition(0.5, 100, mode, seed=4).indices(LABELS, 2, 4, epoch=5)
    assert not torch.equal(first, other_seed)


def test_resample_draws_new_samples_each_epoch_from_the_same_class_distribution():
    partition = DirichletPartition(0.3, 900, "resample")
    epochs = [partition.indices(LABELS, 1, 4, epoch) for epoch in range(20)]
    assert not torch.equal(epochs[0], epochs[1])
    mean_shares = torch.stack([class_shares(indices) for indices in epochs]).mean(dim=0)
    expected = partition.class_distribution(10, 1)
    torch.testing.assert_close(mean_shares.double(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("mode", ["fixed", "disjoint"])
def test_fixed_and_disjoint_shares_do_not_change_between_epochs(mode):
    partition = DirichletPartition(0.3, 200, mode)
    first, later = (partition.indices(LABELS, 1, 4, epoch) for epoch in (0, 7))
    assert torch.equal(first, later)


def test_a_sample_repeats_only_after_its_class_is_exhausted():
    indices = DirichletPartition(1e-3, 250, "resample").indices(LABELS, 0, 1)
    times = torch.bincount(indices, minlength=1000)
    for label in range(10):
        of_class = times[label == LABELS]
        assert of_class.max() - of_class.min() <= 1
    assert times.max() == 3


@pytest.mark.parametrize("mode", MODES)
def test_large_alpha_is_nearly_uniform_and_small_alpha_is_skewed(mode):
    def largest_share(alpha: float) -> float:
        partition = DirichletPartition(alpha, 100, mode)
        shares = [class_shares(partition.indices(LABELS, rank, 8)).max() for rank in range(8)]
        return float(torch.stack(shares).mean())

    assert largest_share(1e5) < 0.2
    assert largest_share(0.05) > 0.5


@pytest.mark.parametrize("concentration", [0.1, 1.0, 10.0])
def test_class_distributions_have_the_moments_of_the_dirichlet(concentration):
    partition = DirichletPartition(concentration, 1)
    drawn = torch.stack([partition.class_distribution(10, rank) for rank in range(3000)])
    variance = 0.1 * 0.9 / (10 * concentration + 1)
    torch.testing.assert_close(drawn.mean(), torch.tensor(0.1, dtype=torch.float64))
    assert drawn.var(dim=0).mean().item() == pytest.approx(variance, rel=0.1)


def test_classes_that_do_not_occur_get_no_samples():
    labels = torch.tensor([3, 7] * 50)
    indices = DirichletPartition(1.0, 40).indices(labels, 0, 1)
    assert len(indices) == 40


@pytest.mark.parametrize(("mode", "world_size"), [("resample", 1), ("fixed", 1), ("disjoint", 4)])
def test_too_few_samples_raise_an_error(mode, world_size):
    partition = DirichletPartition(1.0, 1001 if world_size == 1 else 251, mode)
    with pytest.raises(ValueError, match=r"samples_per_agent=.* the dataset has 1000"):
        partition.indices(LABELS, 0, world_size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"samples_per_agent": 0},
        {"mode": "x"},
        {"seed": -1},
    ],
)
def test_errors_name_the_invalid_argument(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        DirichletPartition(**{"alpha": 1.0, "samples_per_agent": 5, **wrong})


def loader_of(rank: int, partition: DirichletPartition | None):
    data = PartitionedDataModule(batch_size=16, seed=0, num_workers=0, partition=partition)
    data.train_dataset = TensorDataset(torch.arange(1000), LABELS)
    data.partition_labels = LABELS
    data.trainer = World(rank, 2)
    return data.train_dataloader()


def visited(loader, epoch: int) -> torch.Tensor:
    loader.set_epoch(epoch)
    return torch.cat([indices for indices, _ in loader])


@pytest.mark.parametrize("mode", MODES)
def test_a_loader_visits_exactly_the_share_of_its_agent_in_each_epoch(mode):
    partition = DirichletPartition(0.3, 120, mode)
    for rank in (0, 1):
        loader = loader_of(rank, partition)
        for epoch in (0, 1):
            own = partition.indices(LABELS, rank, 2, epoch).sort().values
            assert torch.equal(visited(loader, epoch).sort().values, own)


def test_without_a_partition_the_ranks_share_each_epoch():
    halves = [visited(loader_of(rank, None), epoch=0) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves).sort().values, torch.arange(1000))


def test_agents_shuffle_and_augment_differently():
    loaders = [loader_of(rank, DirichletPartition(1e6, 1000, "fixed")) for rank in (0, 1)]
    assert loaders[0].sampler.seed != loaders[1].sampler.seed


def test_a_partitioned_dataset_is_sized_and_indexes_its_share():
    dataset = PartitionedDataset(LABELS, LABELS, DirichletPartition(0.1, 30), 0, 2)
    assert len(dataset) == 30
    assert [int(dataset[i]) for i in range(30)] == LABELS[dataset.indices].tolist()


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=80), cut=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_any_section_of_the_stratified_order_has_the_class_proportions(labels, cut):
    labels = torch.tensor(labels)
    order = torch.from_numpy(stratified_order(labels))
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    part = order[: round(cut * len(labels))]
    expected = torch.bincount(labels, minlength=4) * len(part) / len(labels)
    assert (torch.bincount(labels[part], minlength=4) - expected).abs().max() <= 2
