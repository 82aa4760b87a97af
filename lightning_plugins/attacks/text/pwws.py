"""PWWS: replaces words by synonyms, in the order of saliency times effect."""

import random
from dataclasses import dataclass, field

from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.wordnet import WordNet
from lightning_plugins.attacks.text.words import Words


@dataclass(frozen=True)
class PWWS(WordAttack):
    """Replaces words by WordNet's synonyms; ranks words by probability-weighted saliency.

    Source: Ren et al., Generating Natural Language Adversarial Examples through Probability
    Weighted Word Saliency, ACL 2019; TextAttack's recipe ``PWWSRen2019``. As in that recipe,
    a word has the synonyms of its lemmas, which are not inflected, and proper names are not
    replaced by other names.

    Args:
        max_queries: See :class:`WordAttack`.
        max_word_share: See :class:`WordAttack`.
        wordnet: The folder of WordNet's files; None searches the usual folders. See
            :class:`WordNet`.

    Raises:
        FileNotFoundError: WordNet is not found.
    """

    wordnet: str | None = None
    _lexicon: WordNet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_lexicon", WordNet(self.wordnet))

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""
        return by_importance(
            words,
            clean_score,
            lambda current, place: self._lexicon.synonyms(words.words[place]),
            questions,
            "saliency",
        )
