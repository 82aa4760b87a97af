"""TextFooler: replaces words by similar words with the same part of speech and meaning."""

import random
from dataclasses import dataclass, field

from lightning_plugins.attacks.text.constraints import SamePartOfSpeech, SentenceSimilarity
from lightning_plugins.attacks.text.embedding_neighbours import WordVectors
from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.wordnet import WordNet
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class TextFooler(WordAttack):
    """Ranks words by the score without them; a replacement keeps part of speech and meaning.

    Two parts differ from the paper: the parts of speech are WordNet's, without the context, and the
    sentence encoder is MiniLM instead of the Universal Sentence Encoder. Without ``vectors``, the
    candidates are WordNet's synonyms instead of neighbours in counter-fitted vectors.

    Source: Jin et al., Is BERT Really Robust?, arXiv 1907.11932; TextAttack's recipe
    ``TextFoolerJin2019``.

    Args:
        max_queries: See :class:`WordAttack`.
        max_word_share: See :class:`WordAttack`.
        constraints: Additional constraints; see :class:`WordAttack`.
        vectors: The path of word vectors in the format of GloVe; None uses synonyms.
        neighbours: The largest number of neighbours per word, at least 1.
        min_cosine: The smallest cosine of a neighbour, in [-1, 1].
        min_similarity: The smallest cosine of the sentences; see :class:`SentenceSimilarity`.
        encoder: The sentence encoder: ``minilm`` (an asset), or a folder.
        wordnet: The folder of WordNet's files; see :class:`WordNet`.

    Raises:
        ValueError: An argument is outside its range.
        FileNotFoundError: WordNet or the vectors are not found.
    """

    vectors: str | None = None
    neighbours: int = 50
    min_cosine: float = 0.5
    min_similarity: float = 0.8
    encoder: str = "minilm"
    wordnet: str | None = None
    _similar: "WordVectors | WordNet" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours}: expected at least 1")
        if not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine={self.min_cosine}: expected a cosine in [-1, 1]")
        own = (
            SamePartOfSpeech(self.wordnet),
            SentenceSimilarity(self.min_similarity, self.encoder),
        )
        # The cheaper constraint first: the encoder sees only what is left.
        object.__setattr__(self, "constraints", (*own, *self.constraints))
        similar = WordNet(self.wordnet) if self.vectors is None else WordVectors(self.vectors)
        object.__setattr__(self, "_similar", similar)

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""

        def propose(current: Words, place: int) -> list[str]:
            word = words.words[place]
            if isinstance(self._similar, WordNet):
                return self._similar.synonyms(word)
            return self._similar.nearest(word, self.neighbours, self.min_cosine)

        return by_importance(words, clean_score, propose, questions, "delete")
