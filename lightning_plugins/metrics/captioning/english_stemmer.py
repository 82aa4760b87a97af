"""The English stemmer of Snowball ("Porter2")."""

import re
from collections.abc import Iterable
from functools import lru_cache

_VOWELS = "aeiouy"
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_EXCEPTIONS = {
    "skis": "ski",
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "idly": "idl",
    "gently": "gentl",
    "ugly": "ugli",
    "early": "earli",
    "only": "onli",
    "singly": "singl",
} | {word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")}
_DONE_WITHOUT_PLURAL = {
    *("inning", "outing", "canning", "herring", "earring"),
    *("proceed", "exceed", "succeed"),
}
_STEP_2 = {
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "aliti": "al",
    "alli": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
    "bli": "ble",
    "ogi": "og",
    "fulli": "ful",
    "lessli": "less",
    "li": "",
}
_STEP_3 = {
    "ational": "ate",
    "tional": "tion",
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
    "ative": "",
}
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"),
    *("ism", "ate", "iti", "ous", "ive", "ize", "ion"),
)


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return the stem of a lower-case word; "houses" and "house" have the same stem.

    Source: M. F. Porter, Snowball, "The English (Porter2) stemming algorithm", whose step numbers
    the function names and comments use.
    """
    if len(word) <= 2:
        return word
    if word in _EXCEPTIONS:
        return _EXCEPTIONS[word]
    word = _mark_consonant_y(word.removeprefix("'"))
    first, second = _regions(word)
    word = _step_1a(re.sub(r"('s'|'s|')$", "", word))  # after step 0
    if word in _DONE_WITHOUT_PLURAL:
        return word
    word = _step_1b(word, first)
    if len(word) > 2 and word[-1] in "yY" and word[-2] not in _VOWELS:  # step 1c
        word = word[:-1] + "i"
    word = _step_2(word, first)
    word = _step_3(word, first, second)
    word = _step_4(word, second)
    return _step_5(word, first, second).replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    return re.sub(r"(^|(?<=[aeiouy]))y", "Y", word)


def _regions(word: str) -> tuple[int, int]:
    """Return the starts of R1 and R2, each after the first vowel followed by a consonant."""
    start = next((len(p) for p in ("gener", "commun", "arsen") if word.startswith(p)), None)
    first = _after_vowel_and_consonant(word, 0) if start is None else start
    return first, _after_vowel_and_consonant(word, first)


def _after_vowel_and_consonant(word: str, start: int) -> int:
    found = re.compile(f"[{_VOWELS}][^{_VOWELS}]").search(word, start)
    return found.end() if found else len(word)


def _longest_suffix(word: str, suffixes: Iterable[str]) -> str:
    return max((suffix for suffix in suffixes if word.endswith(suffix)), key=len, default="")


def _has_vowel(text: str) -> bool:
    return any(letter in _VOWELS for letter in text)


def _ends_in_short_syllable(word: str) -> bool:
    return bool(
        re.search(f"[^{_VOWELS}][{_VOWELS}][^{_VOWELS}wxY]$", word)
        or re.fullmatch(f"[{_VOWELS}][^{_VOWELS}]", word)
    )


def _step_1a(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _has_vowel(word[:-2]):
        return word[:-1]
    return word


def _step_1b(word: str, first: int) -> str:
    suffix = _longest_suffix(word, ("eed", "eedly", "ed", "edly", "ing", "ingly"))
    rest = word[: len(word) - len(suffix)]
    if suffix in ("eed", "eedly"):
        return rest + "ee" if len(rest) >= first else word
    if not suffix or not _has_vowel(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if rest.endswith(_DOUBLES):
        return rest[:-1]
    return rest + "e" if first >= len(rest) and _ends_in_short_syllable(rest) else rest


def _step_2(word: str, first: int) -> str:
    suffix = _longest_suffix(word, _STEP_2)
    rest = word[: len(word) - len(suffix)]
    if not suffix or len(rest) < first:
        return word
    if suffix == "ogi" and not rest.endswith("l"):
        return word
    if suffix == "li" and not rest.endswith(tuple("cdeghkmnrt")):
        return word
    return rest + _STEP_2[suffix]


def _step_3(word: str, first: int, second: int) -> str:
    suffix = _longest_suffix(word, _STEP_3)
    rest = word[: len(word) - len(suffix)]
    if not suffix or len(rest) < first or (suffix == "ative" and len(rest) < second):
        return word
    return rest + _STEP_3[suffix]


def _step_4(word: str, second: int) -> str:
    suffix = _longest_suffix(word, _STEP_4)
    rest = word[: len(word) - len(suffix)]
    if not suffix or len(rest) < second or (suffix == "ion" and not rest.endswith(("s", "t"))):
        return word
    return rest


def _step_5(word: str, first: int, second: int) -> str:
    rest = word[:-1]
    if word.endswith("e"):
        in_first = len(rest) >= first and not _ends_in_short_syllable(rest)
        return rest if len(rest) >= second or in_first else word
    return rest if word.endswith("ll") and len(rest) >= second else word
