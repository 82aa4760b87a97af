"""Influence, coherence and diversity of paths, compared with hand-computed cases and sets."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from lightning_plugins.metrics.recommendation_paths import (
    co_consumption_vectors,
    genre_jaccard,
    genre_variety,
    increase_of_interest,
    increment_of_rank,
    new_genre_share,
    vector_cosine,
)

GENRES = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 1, 1]]).bool()


def test_influence_is_positive_if_the_target_becomes_more_likely():
    before, after = torch.tensor([0.01, 0.2]).log(), torch.tensor([0.04, 0.1]).log()
    expected = torch.tensor([math.log(4), -math.log(2)])
    torch.testing.assert_close(increase_of_interest(before, after), expected)
    assert increment_of_rank(torch.tensor([30, 2]), torch.tensor([4, 5])).tolist() == [26, -3]


def test_genre_jaccard_equals_a_case_computed_by_hand():
    # {a, b} and {b, c} share 1 of 3, equal sets 2 of 2, and an item without genres nothing.
    values = genre_jaccard(GENRES, [[1, 2, 4], [2, 3], [3, 3], [1]])
    assert values[:3].tolist() == pytest.approx([(1 / 3 + 1) / 2, 0, 0])
    assert values[3].isnan()


def test_genre_jaccard_equals_set_operations_on_random_data():
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


def test_co_consumption_equals_set_operations_on_random_data():
    generator = np.random.default_rng(1)
    sequences = [generator.permutation(np.arange(1, 21))[:8].tolist() for _ in range(30)]
    users = [{user for user, items in enumerate(sequences) if item in items} for item in range(21)]
    paths = [generator.integers(1, 21, 6).tolist() for _ in range(40)]

    def cosine(a, b):
        size = math.sqrt(len(users[a]) * len(users[b]))
        return len(users[a] & users[b]) / size if size else 0

    values = vector_cosine(co_consumption_vectors(sequences, num_items=20), paths)
    expected = [np.mean([cosine(a, b) for a, b in pairwise(path)]) for path in paths]
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_diversity_equals_set_operations_on_random_data():
    generator = np.random.default_rng(2)
    genres = generator.random((30, 6)) < 0.3
    sets = [set(np.flatnonzero(row)) for row in genres]
    paths = [generator.integers(1, 30, 5).tolist() for _ in range(40)]
    histories = [generator.integers(1, 30, 3).tolist() for _ in range(40)]

    def distance(a, b):
        return 1 - len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b]))

    variety = [np.mean([distance(a, b) for a, b in combinations(path, 2)]) for path in paths]
    new = [
        np.mean([bool(sets[item] - set.union(*(sets[i] for i in history))) for item in path])
        for history, path in zip(histories, paths, strict=True)
    ]
    table = torch.tensor(genres)
    assert genre_variety(table, paths).tolist() == pytest.approx(variety, abs=1e-6)
    assert new_genre_share(table, histories, paths).tolist() == pytest.approx(new, abs=1e-6)
    assert genre_variety(table, [[1], []]).isnan().all()
    assert new_genre_share(table, [[1]], [[]]).isnan().all()
