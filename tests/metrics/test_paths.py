"""Influence and coherence of paths, against cases computed by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from lightning_plugins.metrics.coherence import (
    co_consumption_vectors,
    genre_jaccard,
    vector_cosine,
)
from lightning_plugins.metrics.influence import increase_of_interest, increment_of_rank

GENRES = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1]]).bool()


def test_influence_is_positive_when_the_target_comes_nearer():
    before, after = torch.tensor([0.01, 0.2]).log(), torch.tensor([0.04, 0.1]).log()
    expected = torch.tensor([math.log(4), -math.log(2)])
    torch.testing.assert_close(increase_of_interest(before, after), expected)
    assert increment_of_rank(torch.tensor([30, 2]), torch.tensor([4, 5])).tolist() == [26, -3]


def test_genre_jaccard_of_a_case_computed_by_hand():
    # {a, b} and {b, c} share 1 of 3, equal sets all of 2, an item without genres nothing.
    values = genre_jaccard(GENRES, [[1, 2, 4], [2, 3], [3, 3], [1]])
    assert values[:3].tolist() == pytest.approx([(1 / 3 + 1) / 2, 0, 0])
    assert values[3].isnan()


def test_genre_jaccard_equals_that_of_sets_on_random_data():
    generator = np.random.default_rng(0)
    genres = generator.random((30, 6)) < 0.3
    paths = [generator.integers(1, 30, 7).tolist() for _ in range(40)]
    sets = [set(np.flatnonzero(row)) for row in genres]
    expected = [
        np.mean(
            [len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b])) for a, b in pairwise(path)]
        )
        for path in paths
    ]
    values = genre_jaccard(torch.tensor(genres), paths)
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_co_consumption_is_the_cosine_over_users():
    vectors = co_consumption_vectors([[1, 2], [2], [1, 2, 3]], num_items=4)
    assert vectors.tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]]
    values = vector_cosine(vectors, [[1, 2], [1, 2, 3], [3, 4]])
    assert values.tolist() == pytest.approx(
        [2 / math.sqrt(6), (2 / math.sqrt(6) + 1 / math.sqrt(3)) / 2, 0]
    )
