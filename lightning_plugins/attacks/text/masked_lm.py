"""Replaces words by predictions of a masked language model."""

import random
from dataclasses import dataclass, field
from typing import Any

from lightning_plugins.attacks.text.word_attack import Questions, Search, WordAttack, by_importance
from lightning_plugins.attacks.text.words import STOP_WORDS, Words
from lightning_plugins.optional_packages import requires


@dataclass(frozen=True)
class MaskedLM(WordAttack):
    """Replaces words by the most probable predictions; ranks words by the score without them.

    This is the replacement of BAE (Garg and Ramakrishnan, arXiv 2004.01970; TextAttack's recipe
    ``BAEGarg2019``) without its part-of-speech tagger and sentence encoder. The words fit their
    context, but may change the meaning, so its success rates are an upper bound.

    Args:
        max_queries: See :class:`WordAttack`. Calls of the language model do not count.
        max_word_share: See :class:`WordAttack`.
        model: The name on the Hugging Face hub, or the folder, of a masked language model.
        candidates: The largest number of candidates per word, at least 1.
        min_probability: The smallest probability of a candidate, in [0, 1].
        max_length: The number of tokens around a word that the language model reads, at least 8.

    Raises:
        ValueError: An argument is outside its range.
        ImportError: transformers is not installed; raised at the first use.
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
        name: The name on the Hugging Face hub, or a folder.
        max_length: The number of tokens that it reads, including special tokens.
    """

    def __init__(self, name: str, max_length: int) -> None:
        with requires("transformers", by="MaskedLM", extra="text"):
            from transformers import AutoModelForMaskedLM, AutoTokenizer
        self._tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        network: Any = AutoModelForMaskedLM.from_pretrained(name, trust_remote_code=False)
        self._network: Any = network.float().eval()  # half precision is slow on most processors
        self._max_length = max_length

    def words(self, words: Words, place: int, count: int, min_probability: float) -> list[str]:
        """Return up to ``count`` whole words for position ``place``, the most probable first."""
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
        # A token that starts with ## continues a word, so it is not a whole word.
        pieces = self._tokenizer.convert_ids_to_tokens(best.indices.tolist())
        return [
            self._tokenizer.decode([token]).strip()
            for (probability, token), piece in zip(pairs, pieces, strict=True)
            if probability >= min_probability and not piece.startswith("##")
        ]


def like(word: str, found: list[str]) -> list[str]:
    """Return the words of ``found`` that can replace ``word``, capitalized as ``word``.

    Candidates must consist of letters, and must not be stop words or ``word`` itself. A stop word
    does not replace the meaning of another word.
    """
    kept = [w for w in found if w.isalpha() and w.lower() not in STOP_WORDS]
    cased = [w.capitalize() if word[:1].isupper() else w for w in kept]
    return [w for w in dict.fromkeys(cased) if w.lower() != word.lower()]
