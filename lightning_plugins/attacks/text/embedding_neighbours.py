"""Replaces words by their nearest neighbours among word vectors."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class EmbeddingNeighbours(WordAttack):
    """Replaces words by nearest neighbours in cosine; ranks words by the score without them.

    This is :class:`TextFooler` (Jin et al., arXiv 1907.11932) without constraints on part of speech
    and meaning. It changes the meaning more, so its success rates are an upper bound. The paper
    uses the counter-fitted vectors of Mrkšić et al., arXiv 1603.00892, in which antonyms are far
    apart; in GloVe they are not.

    Args:
        max_queries: See :class:`WordAttack`.
        max_word_share: See :class:`WordAttack`.
        vectors: The path of a text file in the format of GloVe: one word and its numbers per line,
            with or without a first line of two counts.
        neighbours: The largest number of candidates per word, at least 1.
        min_cosine: The smallest cosine of a candidate, in [-1, 1].

    Raises:
        ValueError: An argument is outside its range, or the file has another format.
        FileNotFoundError: The file does not exist.
    """

    vectors: str = "counter-fitted-vectors.txt"
    neighbours: int = 50
    min_cosine: float = 0.5
    _space: "WordVectors" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours}: expected at least 1")
        if not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine={self.min_cosine}: expected a cosine in [-1, 1]")
        object.__setattr__(self, "_space", WordVectors(self.vectors))

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""

        def propose(current: Words, place: int) -> list[str]:
            return self._space.nearest(words.words[place], self.neighbours, self.min_cosine)

        return by_importance(words, clean_score, propose, questions, "delete")


class WordVectors:
    """Word vectors from a text file.

    Args:
        path: The path of the file.

    Raises:
        ValueError: A line is not a word followed by numbers, or has another number of numbers.
        FileNotFoundError: The file does not exist.
    """

    def __init__(self, path: str) -> None:
        import numpy as np

        if not Path(path).is_file():
            raise FileNotFoundError(
                f"vectors={path!r}: no such file; pass word vectors in the format of GloVe, such "
                "as the counter-fitted ones of github.com/nmrksic/counter-fitting"
            )
        self._words: list[str] = []
        rows: list[Any] = []
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip().split(" ")  # word2vec and fastText end a line with a blank
                if number == 1 and len(parts) == 2:
                    continue  # counts of words and dimensions, as written by word2vec
                # Some words in GloVe's 840B file contain blanks, so the first row sets the length.
                dimensions = len(rows[0]) if rows else len(parts) - 1
                word, values = " ".join(parts[:-dimensions]), parts[len(parts) - dimensions :]
                if not dimensions or not word:
                    raise ValueError(f"{path}, line {number}: {len(parts) - 1} numbers")
                try:
                    rows.append(np.array([float(x) for x in values], dtype=np.float32))
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                self._words.append(word)
        if not rows:
            raise ValueError(f"{path}: no word vectors")
        matrix = np.stack(rows)
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        self._directions: Any = matrix / np.where(norms > 0, norms, 1)
        self._places = {word: place for place, word in enumerate(self._words)}

    def nearest(self, word: str, count: int, min_cosine: float) -> list[str]:
        """Return up to ``count`` other words by decreasing cosine, capitalized as ``word``."""
        place = self._places.get(word, self._places.get(word.lower()))
        if place is None:
            return []
        cosines = self._directions @ self._directions[place]
        cosines[place] = float("-inf")
        best = (-cosines).argsort(kind="stable")[:count]
        found = [self._words[i] for i in best if cosines[i] >= min_cosine]
        return [near.capitalize() if word[:1].isupper() else near for near in found]
