"""Words that a masked language model would put in a word's place."""

import random
from dataclasses import dataclass, field
from typing import Any

from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import STOP_WORDS, Words
from lightning_plugins.optional_packages import requires


@dataclass(frozen=True)
class MaskedLM(WordAttack):
    """The most probable words at the place of a word, of words ranked by the score without them.

    It is BAE's replacement (Garg and Ramakrishnan, arXiv 2004.01970; TextAttack's recipe
    ``BAEGarg2019``) without its part-of-speech tagger and sentence encoder: the words fit their
    context, but may change the meaning. Read its success rates as an upper bound.

    Args:
        max_queries: see :class:`WordAttack`, as the next. Questions to the language model are free.
        max_word_share: likewise.
        model: name on the Hugging Face hub, or folder, of a masked language model.
        candidates: a word at most, at least 1.
        min_probability: of a candidate, in [0, 1].
        max_length: tokens that the language model reads around a word, at least 8.

    Raises:
        ValueError: an argument outside its range.
        ImportError: without transformers, when it is first used.
    """

    model: str = "bert-base-uncased"
    candidates: int = 50
    min_probability: float = 0.0
    max_length: int = 256
    _loaded: "MaskFiller | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates}: expected at least 1")
        if not 0 <= self.min_probability <= 1:
            raise ValueError(
                f"min_probability={self.min_probability}: expected a probability in [0, 1]"
            )
        if self.max_length < 8:
            raise ValueError(f"max_length={self.max_length}: expected at least 8")

    def search(
        self, words: Words, clean_score: float, questions: Questions, randomness: random.Random
    ) -> Search:
        """See :class:`WordAttack`."""
        if self._loaded is None:
            object.__setattr__(self, "_loaded", MaskFiller(self.model, self.max_length))
        filler = self._loaded
        assert filler is not None

        def propose(current: Words, place: int) -> list[str]:
            found = filler.words(current, place, self.candidates, self.min_probability)
            return like(words.words[place], found)

        return by_importance(words, clean_score, propose, questions, "delete")


class MaskFiller:
    """A masked language model of transformers.

    Args:
        name: on the Hugging Face hub, or a folder.
        max_length: tokens that it reads, special ones included.
    """

    def __init__(self, name: str, max_length: int) -> None:
        with requires("transformers", by="MaskedLM", extra="text"):
            from transformers import AutoModelForMaskedLM, AutoTokenizer
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        self._network: Any = AutoModelForMaskedLM.from_pretrained(name).eval()
        self._max_length = max_length

    def words(self, words: Words, place: int, count: int, min_probability: float) -> list[str]:
        """Up to ``count`` whole words for ``place``, the most probable first."""
        import torch

        mask = self._tokenizer.mask_token
        text = words.replaced(place, mask).text
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        where = ids.index(self._tokenizer.mask_token_id)
        room = self._max_length - 2
        first = max(0, min(where - room // 2, len(ids) - room))
        begin, end = self._tokenizer.cls_token_id, self._tokenizer.sep_token_id
        ids = [begin, *ids[first : first + room], end]
        where = ids.index(self._tokenizer.mask_token_id)
        with torch.no_grad():
            logits = self._network(input_ids=torch.tensor([ids])).logits[0, where]
        probabilities = logits.softmax(-1)
        best = probabilities.topk(min(count, len(probabilities)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        # A piece of a word decodes to something that has no letters only, or is joined to the left.
        pieces = self._tokenizer.convert_ids_to_tokens(best.indices.tolist())
        return [
            self._tokenizer.decode([token]).strip()
            for (probability, token), piece in zip(pairs, pieces, strict=True)
            if probability >= min_probability and not piece.startswith("##")
        ]


def like(word: str, found: list[str]) -> list[str]:
    """Of ``found`` the words of letters that are neither ``word`` nor stop words, in its capitals.

    A stop word in the place of another word would be no replacement of it.
    """
    kept = [w for w in found if w.isalpha() and w.lower() not in STOP_WORDS]
    cased = [w.capitalize() if word[:1].isupper() else w for w in kept]
    return [w for w in dict.fromkeys(cased) if w.lower() != word.lower()]
