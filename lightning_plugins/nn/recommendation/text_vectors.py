"""Items as vectors of the words in their titles and genres."""

import math
import re
from collections import Counter

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.nn.recommendation.catalogue import Catalogue, Item

_WORD = re.compile(r"[^\W\d_]{2,}")


def text_vectors(catalogue: Catalogue) -> Tensor:
    r"""TF-IDF vectors of unit length, ``(num_items + 1, words)``; their products are cosines.

    A word's weight is :math:`\log((1 + n) / (1 + n_w)) + 1` with :math:`n_w` of the :math:`n` items
    having it. Genres count as words of their own. An item without a word is the zero vector.
    """
    words = [Counter(_words(item)) for item in catalogue]
    having = Counter(word for counts in words for word in counts)
    column = {word: place for place, word in enumerate(sorted(having))}
    weight = {
        word: math.log((1 + catalogue.num_items) / (1 + count)) + 1
        for word, count in having.items()
    }
    vectors = torch.zeros(len(catalogue), len(column))
    for number, counts in enumerate(words):
        for word, count in counts.items():
            vectors[number, column[word]] = count * weight[word]
    return normalize(vectors, dim=1)


def _words(item: Item) -> list[str]:
    # A title's "Drama" is another word than the genre.
    return _WORD.findall(item.title.lower()) + [f"genre {genre}" for genre in item.genres]
