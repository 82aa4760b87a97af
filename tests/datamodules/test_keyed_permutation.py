import tracemalloc
from collections import Counter

import numpy as np
import pytest

from lightning_plugins.datamodules.keyed_permutation import KeyedPermutation
from lightning_plugins.datamodules.resumable import EpochBatches


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_every_place_has_another_element(size):
    elements = KeyedPermutation(size, key=5)(np.arange(size))
    assert sorted(elements.tolist()) == list(range(size))


def test_permutations_are_equally_frequent_over_keys_and_unrelated_to_the_places():
    drawn = Counter(tuple(KeyedPermutation(4, key)(np.arange(4))) for key in range(4800))
    assert len(drawn) == 24
    assert sum((count - 200) ** 2 / 200 for count in drawn.values()) < 49.7  # p = 0.001
    places = np.arange(100_000)
    elements = KeyedPermutation(100_000, key=3)(places)
    assert abs(np.corrcoef(places, elements)[0, 1]) < 0.01
    assert abs(np.corrcoef(elements[1:], elements[:-1])[0, 1]) < 0.01


def test_the_order_of_twenty_million_samples_needs_no_table():
    batches = EpochBatches(20_000_000, 16, True, 0, False, rank=1, world_size=2)
    tracemalloc.start()
    found = [indices for (_, indices), _ in zip(batches, range(1000), strict=False)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert len({index for indices in found for index in indices}) == 16_000


def test_a_large_epoch_visits_every_sample_once_over_all_ranks(monkeypatch):
    monkeypatch.setattr("lightning_plugins.datamodules.resumable._LARGEST_TABLE", 10)
    ranks = [EpochBatches(600, 7, True, 0, False, rank, 2) for rank in range(2)]
    seen = [index for batches in ranks for _, indices in batches for index in indices]
    assert sorted(seen) == list(range(600))
