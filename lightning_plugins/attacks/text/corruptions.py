"""Corruptions of texts that do not query the detector, as in the RAID benchmark.

Each function takes a text, the share of applicable positions to change, in [0, 1], and a random
generator. The kinds follow Dugan et al., RAID, arXiv 2405.07940; the word lists are our own.
"""

import random
import re
from collections.abc import Callable

from lightning_plugins.attacks.text.characters import HOMOGLYPHS

Corruption = Callable[[str, float, random.Random], str]

_MISSPELLINGS = {
    "because": "becuase",
    "before": "befor",
    "beginning": "begining",
    "believe": "beleive",
    "business": "buisness",
    "definitely": "definately",
    "different": "diffrent",
    "environment": "enviroment",
    "especially": "expecially",
    "experience": "experiance",
    "friend": "freind",
    "government": "goverment",
    "immediately": "immediatly",
    "important": "importent",
    "independent": "independant",
    "interesting": "intresting",
    "knowledge": "knowlege",
    "necessary": "neccessary",
    "occurred": "occured",
    "people": "poeple",
    "possible": "possable",
    "probably": "probaly",
    "really": "realy",
    "receive": "recieve",
    "separate": "seperate",
    "several": "severel",
    "similar": "similiar",
    "their": "thier",
    "through": "throught",
    "together": "togather",
    "tomorrow": "tommorow",
    "until": "untill",
    "usually": "usualy",
    "which": "wich",
    "while": "whlie",
    "with": "wiht",
    "world": "wolrd",
    "would": "woudl",
    "writing": "writting",
}
_MISSPELT = re.compile(rf"\b(?:{'|'.join(_MISSPELLINGS)})\b", re.IGNORECASE)


def homoglyphs(text: str, share: float, randomness: random.Random) -> str:
    """Replace letters by look-alikes from other scripts."""
    return _changed(r"[a-z]", text, share, randomness, lambda found: HOMOGLYPHS[found])


def whitespace(text: str, share: float, randomness: random.Random) -> str:
    """Double single spaces between words."""
    return _changed(r"(?<=\S) (?=\S)", text, share, randomness, lambda found: "  ")


def zero_width_spaces(text: str, share: float, randomness: random.Random) -> str:
    """Insert zero-width spaces (U+200B) after characters."""
    return _changed(r"\S", text, share, randomness, lambda found: found + "\u200b")


def misspellings(text: str, share: float, randomness: random.Random) -> str:
    """Replace words by common misspellings."""

    def misspelt(found: str) -> str:
        wrong = _MISSPELLINGS[found.lower()]
        return wrong.capitalize() if found[0].isupper() else wrong

    return _changed(_MISSPELT, text, share, randomness, misspelt)


def article_deletion(text: str, share: float, randomness: random.Random) -> str:
    """Delete articles and the space after them."""
    return _changed(r"\b(?:[Tt]he|[Aa]n?) ", text, share, randomness, lambda found: "")


def case_swap(text: str, share: float, randomness: random.Random) -> str:
    """Swap the case of the first letters of words."""
    return _changed(r"\b[^\W\d_]", text, share, randomness, str.swapcase)


def number_swap(text: str, share: float, randomness: random.Random) -> str:
    """Replace digits by other digits."""

    def other(digit: str) -> str:
        return randomness.choice([d for d in "0123456789" if d != digit])

    return _changed(r"[0-9]", text, share, randomness, other)


def paragraphs(text: str, share: float, randomness: random.Random) -> str:
    """Start a new paragraph after sentences."""
    return _changed(r"(?<=[.!?]) +(?=\S)", text, share, randomness, lambda found: "\n\n")


CORRUPTIONS: dict[str, Corruption] = {
    "article_deletion": article_deletion,
    "case_swap": case_swap,
    "homoglyphs": homoglyphs,
    "misspellings": misspellings,
    "number_swap": number_swap,
    "paragraphs": paragraphs,
    "whitespace": whitespace,
    "zero_width_spaces": zero_width_spaces,
}


def corrupt(kind: str, text: str, share: float, seed: int = 0) -> str:
    """Change ``round(share * positions)`` of the positions in ``text`` to which a kind applies.

    Args:
        kind: A name in ``CORRUPTIONS``.
        text: Any string.
        share: The share of applicable positions to change, in [0, 1].
        seed: The seed of the choice; the same text is always corrupted in the same way.

    Raises:
        ValueError: The kind is unknown, or the share is outside its range.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(CORRUPTIONS)}")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected a share in [0, 1]")
    return CORRUPTIONS[kind](text, share, random.Random(f"{seed}:{text}"))


def _changed(
    pattern: str | re.Pattern[str],
    text: str,
    share: float,
    randomness: random.Random,
    change: Callable[[str], str],
) -> str:
    found = list(re.finditer(pattern, text))
    chosen = sorted(randomness.sample(range(len(found)), round(share * len(found))))
    pieces, end = [], 0
    for place in chosen:
        pieces += [text[end : found[place].start()], change(found[place][0])]
        end = found[place].end()
    return "".join([*pieces, text[end:]])
