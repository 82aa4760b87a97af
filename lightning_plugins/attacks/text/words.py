"""A text as its words and the characters between them; stop words."""

from dataclasses import dataclass, replace

from lightning_plugins.attacks.text.scripts import word_pattern

# Apostrophes, hyphens and the marks of handles belong to a word, except as its first character.
_INSIDE = "'*@-"

# The English list that NLTK publishes, as TextAttack's recipes use it: pronouns, auxiliaries,
# prepositions, contractions and their parts.
_PRONOUNS = """
i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves
he him his himself she she's her hers herself it it's its itself they them their theirs themselves
what which who whom this that that'll these those
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing can will just don don't
should should've ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't
haven haven't isn isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't
wasn wasn't weren weren't won won't wouldn wouldn't s t d ll m o re ve y
"""
_OTHERS = """
a an the and but if or because as until while of at by for with about against between into through
during before after above below to from up down in out on off over under again further then once
here there when where why how all any both each few more most other some such no nor not only own
same so than too very now
"""
STOP_WORDS = frozenset((_PRONOUNS + _AUXILIARIES + _OTHERS).split())
"""Words that attacks do not change."""


@dataclass(frozen=True)
class Words:
    """A text whose words can be replaced; every other character is kept.

    Attributes:
        words: The current words.
        gaps: The characters before each word, and those after the last one.
        changed: The positions of replaced words.
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...]
    changed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, text: str) -> "Words":
        """Split ``text`` into words and gaps."""
        found = list(word_pattern(_INSIDE).finditer(text))
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
        """Return a copy with another word at position ``place``."""
        words = (*self.words[:place], word, *self.words[place + 1 :])
        return replace(self, words=words, changed=self.changed | {place})

    def __len__(self) -> int:
        return len(self.words)
