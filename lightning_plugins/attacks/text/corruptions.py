"""Corruptions of texts that do not query the detector, as in the RAID benchmark.

Each function takes a text, the share of applicable positions to change, in [0, 1], and a random
generator. The kinds follow Dugan et al., RAID, arXiv 2405.07940; the word lists are our own.
"""

import random
import re
import string
from collections.abc import Callable
from functools import cache

from lightning_plugins.attacks.text.characters import HOMOGLYPHS
from lightning_plugins.attacks.text.wordnet import WordNet
from lightning_plugins.attacks.text.words import STOP_WORDS

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
# American and British spellings; each is replaced by the other.
_OR = ("col", "fav", "hon", "hum", "lab", "neighb", "rum", "vap", "vig")
_IZE = ("organ", "real", "recogn", "emphas", "summar", "apolog")
_ER = ("cent", "fib", "lit", "theat", "kilomet", "spect")
_SPELLINGS = {
    **{f"{stem}or": f"{stem}our" for stem in _OR},
    **{f"{stem}ize": f"{stem}ise" for stem in _IZE},
    **{f"{stem}ized": f"{stem}ised" for stem in _IZE},
    **{f"{stem}er": f"{stem}re" for stem in _ER},
    "aging": "ageing",
    "airplane": "aeroplane",
    "aluminum": "aluminium",
    "analyze": "analyse",
    "analyzed": "analysed",
    "behavior": "behaviour",
    "canceled": "cancelled",
    "catalog": "catalogue",
    "cozy": "cosy",
    "defense": "defence",
    "dialog": "dialogue",
    "enrollment": "enrolment",
    "favorite": "favourite",
    "fulfill": "fulfil",
    "gray": "grey",
    "harbor": "harbour",
    "jewelry": "jewellery",
    "labeled": "labelled",
    "license": "licence",
    "math": "maths",
    "modeling": "modelling",
    "mom": "mum",
    "offense": "offence",
    "organization": "organisation",
    "pajamas": "pyjamas",
    "parlor": "parlour",
    "plow": "plough",
    "program": "programme",
    "skeptical": "sceptical",
    "skillful": "skilful",
    "tire": "tyre",
    "toward": "towards",
    "traveled": "travelled",
    "traveler": "traveller",
    "traveling": "travelling",
}
_OTHER_SPELLING = _SPELLINGS | {british: american for american, british in _SPELLINGS.items()}
_SPELT = re.compile(rf"\b(?:{'|'.join(_OTHER_SPELLING)})\b", re.IGNORECASE)
# Look-alikes of capital letters from the Cyrillic, Greek, Armenian and Cherokee scripts.
_CAPITAL_HOMOGLYPHS = dict(
    zip(
        string.ascii_uppercase,
        "\u0410\u0412\u0421\u13a0\u0415\u03dc\u050c\u041d\u0406\u0408\u041a\u13de\u041c\u039d\u041e"
        "\u0420\u051a\u13a1\u0405\u0422\u054d\u13d9\u13b3\u0425\u03a5\u0396",
        strict=True,
    )
)
_MISSPELT = re.compile(rf"\b(?:{'|'.join(_MISSPELLINGS)})\b", re.IGNORECASE)


def homoglyphs(text: str, share: float, randomness: random.Random) -> str:
    """Replace letters of both cases by look-alikes from other scripts."""
    look_alikes = HOMOGLYPHS | _CAPITAL_HOMOGLYPHS
    return _changed(r"[A-Za-z]", text, share, randomness, look_alikes.__getitem__)


def alternative_spelling(text: str, share: float, randomness: random.Random) -> str:
    """Replace American spellings by British ones, and the reverse."""

    def respelt(found: str) -> str:
        return _cased(_OTHER_SPELLING[found.lower()], found)

    return _changed(_SPELT, text, share, randomness, respelt)


def synonyms(text: str, share: float, randomness: random.Random) -> str:
    """Replace words by one of WordNet's synonyms; stop words and words without one stay.

    RAID draws candidates of a masked language model instead; here they do not depend on the
    context.

    Raises:
        FileNotFoundError: WordNet is not found; see :class:`WordNet`.
    """
    lexicon = _wordnet()

    def candidates(word: str) -> list[str]:
        return [] if word.lower() in STOP_WORDS else lexicon.synonyms(word)

    def replaced(found: str) -> str:
        return _cased(randomness.choice(candidates(found)), found)

    words = {found[0] for found in re.finditer(r"[A-Za-z]+", text)}
    known = sorted(re.escape(word) for word in words if candidates(word))
    if not known:
        return text
    return _changed(rf"\b(?:{'|'.join(known)})\b", text, share, randomness, replaced)


def whitespace(text: str, share: float, randomness: random.Random) -> str:
    """Double single spaces between words."""
    return _changed(r"(?<=\S) (?=\S)", text, share, randomness, lambda found: "  ")


def zero_width_spaces(text: str, share: float, randomness: random.Random) -> str:
    """Insert zero-width spaces (U+200B) after characters."""
    return _changed(r"\S", text, share, randomness, lambda found: found + "\u200b")


def misspellings(text: str, share: float, randomness: random.Random) -> str:
    """Replace words by common misspellings."""

    def misspelt(found: str) -> str:
        return _cased(_MISSPELLINGS[found.lower()], found)

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
    "alternative_spelling": alternative_spelling,
    "article_deletion": article_deletion,
    "case_swap": case_swap,
    "homoglyphs": homoglyphs,
    "misspellings": misspellings,
    "number_swap": number_swap,
    "paragraphs": paragraphs,
    "synonyms": synonyms,
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
        FileNotFoundError: WordNet, for ``synonyms``, is not found.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(CORRUPTIONS)}")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected a share in [0, 1]")
    return CORRUPTIONS[kind](text, share, random.Random(f"{seed}:{text}"))


@cache
def _wordnet() -> WordNet:
    return WordNet()


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like[0].isupper() else word


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
