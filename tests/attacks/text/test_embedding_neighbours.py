"""Neighbours in a plane, where cosines are known."""

import math

import pytest

from lightning_plugins.attacks.text import EmbeddingNeighbours, attack_texts
from lightning_plugins.attacks.text.embedding_neighbours import WordVectors

# Angles in degrees; lengths must not matter.
ANGLES = {
    "moreover": (0, 1),
    "besides": (10, 3),
    "also": (50, 0.2),
    "never": (70, 1),
    "not": (180, 1),
}


@pytest.fixture
def path(tmp_path):
    rows = [
        f"{word} {size * math.cos(math.radians(a))} {size * math.sin(math.radians(a))}\n"
        for word, (a, size) in ANGLES.items()
    ]
    (tmp_path / "vectors.txt").write_text("5 2\n" + "".join(rows))
    return str(tmp_path / "vectors.txt")


def test_neighbours_are_sorted_by_cosine_and_stop_at_the_bound(path):
    space = WordVectors(path)
    assert space.nearest("moreover", 50, 0.5) == ["besides", "also"]
    assert space.nearest("moreover", 1, 0.5) == ["besides"]
    assert space.nearest("Also", 50, -1.0) == ["Never", "Besides", "Moreover", "Not"]
    assert space.nearest("cloud", 50, -1.0) == []


def test_the_attack_replaces_the_marker_by_a_neighbour(path, detector):
    (result,) = attack_texts(EmbeddingNeighbours(vectors=path), detector, ["A moreover B"], [1])
    assert result.adversarial == "A besides B"
    assert result.status == "succeeded"


def test_blanks_at_the_end_of_a_line_and_within_a_word_are_read(tmp_path):
    path = tmp_path / "published.txt"
    path.write_text("moreover 1 0 \n. . . 0 1\nat name@domain.com 1 1\n\u00a0 0 2\n", "utf-8")
    space = WordVectors(str(path))
    assert space.nearest("moreover", 1, 0.5) == ["at name@domain.com"]
    assert space.nearest(". . .", 9, 0.9) == ["\u00a0"]


@pytest.mark.parametrize("content", ["", "a 1 2\nb 1\n", "a 1 x\n", "a\n"])
def test_another_format_raises_an_error(tmp_path, content):
    (tmp_path / "bad.txt").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.txt"):
        WordVectors(str(tmp_path / "bad.txt"))


def test_wrong_arguments_raise_an_error(path):
    with pytest.raises(ValueError, match="neighbours=0"):
        EmbeddingNeighbours(vectors=path, neighbours=0)
    with pytest.raises(ValueError, match="min_cosine=2"):
        EmbeddingNeighbours(vectors=path, min_cosine=2)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt.*counter-fitted"):
        EmbeddingNeighbours(vectors="nowhere.txt")
