"""Words in all scripts: letters with their vowel signs, accents and joiners."""

import functools
import re
import sys
import unicodedata


@functools.cache
def combining_marks() -> str:
    r"""Return all combining marks, escaped for a character class of a regular expression.

    Vowel signs and accents of many scripts are marks, which ``\w`` does not include.
    """
    codes = range(sys.maxunicode + 1)
    return "".join(re.escape(chr(x)) for x in codes if unicodedata.category(chr(x))[0] == "M")


@functools.cache
def word_pattern(inside: str = "") -> re.Pattern[str]:
    r"""Return the pattern of a word: ``\w`` with marks, and joiners between two letters.

    Args:
        inside: Further characters of a word, except as its first, for a character class.
    """
    return re.compile(rf"(?!_)\w(?:[\w{combining_marks()}{inside}]|[\u200c\u200d](?=\w))*")
