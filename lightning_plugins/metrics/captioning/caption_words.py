"""Words of captions: the two tokenisations of the field, and sentences that state no change."""

import re
from typing import Literal

Tokenization = Literal["ptb", "space"]
# What the Penn Treebank tokenizer separates and the COCO scripts then drop.
_PUNCTUATION = frozenset([*"()[]{}.?!,:;-`'\"", "''", "``", "--", "..."])
_CONTRACTIONS = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))\b")
_TOKEN = re.compile(
    r"n't\b|'(?:s|re|ve|ll|d|m)\b"
    r"|\d+(?:[.,]\d+)+"  # 3.5 and 1,000
    r"|\w+(?:[-/]\w+)*"  # a hyphen or slash within a word stays
    r"|\.\.\.|--|[^\w\s]"
)


def caption_words(sentence: str, tokenization: Tokenization = "ptb") -> list[str]:
    """Split a caption into words.

    Args:
        sentence: The caption.
        tokenization: ``ptb`` separates and drops punctuation, as the COCO scripts do with the
            Penn Treebank tokenizer: ``trees, roads`` has the words ``trees`` and ``roads``.
            ``space`` only drops full stops, as the evaluation of CCExpert does: ``trees,`` is a
            word. Both convert to lower case.
    """
    text = sentence.lower()
    if tokenization == "space":
        return text.replace(".", "").split()
    tokens = _TOKEN.findall(_CONTRACTIONS.sub(r" \1", text))
    return [token for token in tokens if token not in _PUNCTUATION]


NO_CHANGE_PATTERNS = (
    r"\b(?:no|without(?: any)?|not(?: \w+)? any)(?: \w+){0,2} (?:changes?|differences?)\b",
    r"\bnothing (?:\w+ ){0,2}(?:changed?|changes|different|differs|happens|happened)\b",
    r"\b(?:not|n't|never)(?: \w+)? (?:changed?|differ|different)\b",
    r"\b(?:scenes?|images?|pictures?|areas?|places?|they|everything|all|both)\b(?: \w+){0,4}"
    r" (?:same|identical|alike|unchanged)\b",
    r"\bsame as before\b",
    r"\bas (?:it|they) (?:did|does|do|was|were|is|are) before\b",
)
"""Regular expressions of statements that nothing changed."""
_BUT = re.compile(r"\b(?:but|except|although|though|however|besides|apart from|other than|only)\b")
_NO_CHANGE = re.compile("|".join(NO_CHANGE_PATTERNS))


def states_no_change(sentence: str) -> bool:
    """Whether a caption states that nothing changed.

    It does if one of
    :data:`~lightning_plugins.metrics.captioning.caption_words.NO_CHANGE_PATTERNS` matches and the
    sentence has no word of contrast (but, except, although, though, however, besides, apart from,
    other than, only), after which a change usually follows.
    """
    text = " ".join(caption_words(sentence))
    return bool(_NO_CHANGE.search(text)) and not _BUT.search(text)
