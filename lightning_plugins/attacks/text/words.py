"""A text as words and what stands between them."""

import re
from dataclasses import dataclass, replace

# Apostrophes, hyphens and marks as in handles belong to a word that they do not begin.
_WORD = re.compile(r"(?!_)\w[\w'*@-]*")


@dataclass(frozen=True)
class Words:
    """A text of which words can be replaced; all else stays, character by character.

    Attributes:
        words: as they stand now.
        gaps: what stands before each word, and after the last one.
        changed: places of words that were replaced.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]
    changed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, text: str) -> "Words":
        """Split ``text`` at everything that is no word."""
        found = list(_WORD.finditer(text))
        ends = [0, *(word.end() for word in found)]
        starts = [*(word.start() for word in found), len(text)]
        gaps = tuple(text[end:start] for end, start in zip(ends, starts, strict=True))
        return cls(tuple(word[0] for word in found), gaps)

    @property
    def text(self) -> str:
        """The whole text."""
        pairs = zip(self.gaps, (*self.words, ""), strict=True)
        return "".join(gap + word for gap, word in pairs)

    def replaced(self, place: int, word: str) -> "Words":
        """With another word at ``place``."""
        words = (*self.words[:place], word, *self.words[place + 1 :])
        return replace(self, words=words, changed=self.changed | {place})

    def __len__(self) -> int:
        return len(self.words)
