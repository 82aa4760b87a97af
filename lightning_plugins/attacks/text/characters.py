"""Changes of one or two characters of a word.

Each function returns all words that one change produces, or, with a random generator, one of them.
``inner`` excludes the first and the last character. The definitions are those of TextAttack's word
swaps, so both produce the same candidates.
"""

import random
import string
from collections.abc import Callable

_NEIGHBOURS = {
    "q": "was",
    "w": "qeasd",
    "e": "wsdfr",
    "r": "edfgt",
    "t": "rfghy",
    "y": "tghju",
    "u": "yhjki",
    "i": "ujklo",
    "o": "iklp",
    "p": "ol",
    "a": "qwszx",
    "s": "qweadzx",
    "d": "werfcxs",
    "f": "ertgvcd",
    "g": "rtyhbvd",
    "h": "tyugjbn",
    "j": "yuikmnh",
    "k": "uiolmj",
    "l": "iopk",
    "z": "asx",
    "x": "sdzc",
    "c": "xdfv",
    "v": "cfgb",
    "b": "vghn",
    "n": "bhjm",
    "m": "njk",
}
# One look-alike from another script for each; written as escapes, because they look the same.
HOMOGLYPHS = dict(
    zip(
        "-987654321" + "0'" + string.ascii_lowercase,
        "\u02d7\u09ed\u0222\U0001d7d5\u0431\u01bc\u13ce\u01b7\u14bfl"
        "O`"
        "\u0251\u042c\u03f2\u0501\u0435\U0001d68f\u0261\u0570\u0456\u03f3\U0001d48c\u217c\uff4d"
        "\u0578\u043e\u0440\u051b\u2c85\u0455\U0001d69d\u057d\u0475\u051d\u00d7\u0443\u1d22",
        strict=True,
    )
)


def swaps(word: str, randomness: random.Random | None = None, inner: bool = False) -> list[str]:
    """Swap two neighbouring characters."""
    places = range(inner, len(word) - 1 - inner)
    return _made(places, lambda i: word[:i] + word[i + 1] + word[i] + word[i + 2 :], randomness)


def deletions(word: str, randomness: random.Random | None = None, inner: bool = False) -> list[str]:
    """Delete one character; a word of one character is not changed."""
    return _made(_places(word, inner), lambda i: word[:i] + word[i + 1 :], randomness)


def substitutions(word: str, randomness: random.Random) -> list[str]:
    """Replace the character at a random position by a random letter."""
    letter = randomness.choice(string.ascii_letters)
    return _made(_places(word), lambda i: word[:i] + letter + word[i + 1 :], randomness)


def insertions(
    word: str,
    randomness: random.Random,
    inner: bool = False,
    letters: str = string.ascii_letters,
    everywhere: bool = False,
) -> list[str]:
    """Insert a random one of ``letters`` before a random character, or before each character."""
    return _made(
        _places(word, inner),
        lambda i: word[:i] + randomness.choice(letters) + word[i:],
        None if everywhere else randomness,
    )


def keyboard_slips(word: str, inner: bool = False) -> list[str]:
    """Replace a letter by each neighbouring key of an English keyboard, in the same case."""
    slips = []
    for i in _places(word, inner):
        keys = _NEIGHBOURS.get(word[i].lower(), "")
        keys = keys.upper() if word[i].isupper() else keys
        slips += [word[:i] + key + word[i + 1 :] for key in keys]
    return slips


def look_alikes(word: str, randomness: random.Random | None = None) -> list[str]:
    """Replace a character by its look-alike from another script."""
    places = [i for i in range(len(word)) if word[i] in HOMOGLYPHS]
    return _made(places, lambda i: word[:i] + HOMOGLYPHS[word[i]] + word[i + 1 :], randomness)


def edit_distance(a: str, b: str) -> int:
    """Return the smallest number of insertions, deletions and substitutions (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _places(word: str, inner: bool = False) -> range:
    return range(inner, len(word) - inner) if len(word) > 1 else range(0)


def _made(
    places: range | list[int], change: Callable[[int], str], randomness: random.Random | None
) -> list[str]:
    if randomness is not None and places:
        places = [randomness.choice(places)]
    return [change(place) for place in places]
