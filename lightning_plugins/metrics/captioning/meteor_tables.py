"""Tables that METEOR needs besides the sentences: synonyms of WordNet and paraphrases."""

import gzip
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, cast

from lightning_plugins.attacks.text.wordnet import WordNet
from lightning_plugins.inputs import decompressed
from lightning_plugins.metrics.captioning.meteor import LONGEST_PHRASE, tokenized

_PARTS = ("noun", "verb", "adj", "adv")


@cache
def wordnet_synonyms(directory: str | None = None) -> Callable[[str, str], bool]:
    """Return a function that tells whether two words, in any form, are in one synset of WordNet.

    Args:
        directory: The folder of WordNet's data files; None searches the usual places, see
            :class:`~lightning_plugins.attacks.text.WordNet`.

    Raises:
        FileNotFoundError: The files are not found.
    """
    wordnet = WordNet(directory)

    @cache
    def meanings(word: str) -> frozenset[tuple[str, str]]:
        return frozenset(
            (part, other)
            for part in _PARTS
            for lemma in wordnet.lemmas(word, part)
            for other in (lemma, *wordnet.synonyms(lemma, part))
        )

    @cache
    def lemmas(word: str) -> frozenset[tuple[str, str]]:
        return frozenset((part, lemma) for part in _PARTS for lemma in wordnet.lemmas(word, part))

    def are_synonyms(one: str, other: str) -> bool:
        return not meanings(one).isdisjoint(lemmas(other))

    return are_synonyms


def read_paraphrases(table: str | Path, sentences: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Read the pairs of a paraphrase table whose phrases occur in ``sentences``.

    Args:
        table: A file in the format of METEOR's ``paraphrase-en.gz``: three lines per pair, its
            probability and the two phrases. The file may be compressed with gzip.
        sentences: All captions and references that are to be scored.

    Raises:
        ValueError: The file is not in this format.
        LimitError: The decompressed file is too large.
    """
    phrases = set()
    for sentence in set(sentences):
        words = tokenized(sentence)
        for start in range(len(words)):
            for end in range(start + 1, min(start + LONGEST_PHRASE, len(words)) + 1):
                phrases.add(" ".join(words[start:end]).encode())
    path = Path(table)
    found = set()
    with path.open("rb") as raw:
        is_compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        unpacked = cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        stream = decompressed(unpacked, path) if is_compressed else raw
        try:
            while lines := list(islice(stream, 3)):
                _, one, other = (line.rstrip() for line in lines)
                if one in phrases and other in phrases:
                    found.add((one.decode(), other.decode()))
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is not a table of paraphrases of METEOR: {error}") from error
    return frozenset(found)
