"""Random words behind a mask."""

import random
import re

_WORD = re.compile(r"\S+")


def mask_words(text: str, share: float, mask_token: str, randomness: random.Random) -> str:
    """``text`` with ``round(share * words)`` of its words replaced, its white space kept."""
    words = list(_WORD.finditer(text))
    masked = randomness.sample(words, round(share * len(words)))
    for word in sorted(masked, key=lambda m: m.start(), reverse=True):
        text = text[: word.start()] + mask_token + text[word.end() :]
    return text
