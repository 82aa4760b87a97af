"""Fonts for text in any script: installed fonts where the default lacks letters, or boxes."""

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT = "DejaVu Sans"
_BOX = "□"
_NOTE = "□ stands for letters that no installed font has; Debian: apt install fonts-noto-cjk"
_NO_TEXT_FONTS = ("Last Resort", "STIX", "cm", "DejaVu Math")


def use_fonts_of_text(figure: "Figure") -> None:
    """Give every text of a figure a font that has its letters.

    Letters that matplotlib's default font lacks are taken from the installed fonts, preferably from
    Noto Sans. Letters that no font has are replaced by their compatible form (full-width Latin
    letters by Latin ones) or by a box, and a note below the figure explains the boxes.
    """
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    letters = {letter for text in texts for letter in text.get_text() if not letter.isspace()}
    missing = frozenset(letters) - _letters_of_default()
    if not missing:
        return
    families, absent = _families(missing)
    for text in texts:
        text.set_fontfamily([_DEFAULT, *families])
        if absent & set(text.get_text()):
            text.set_text("".join(_replaced(letter, absent) for letter in text.get_text()))
    if any(_BOX in text.get_text() for text in texts):
        figure.supxlabel(_NOTE, fontsize=7, x=0.01, ha="left")


def _replaced(letter: str, absent: frozenset[str]) -> str:
    if letter not in absent:
        return letter
    plain = unicodedata.normalize("NFKD", letter)
    plain = "".join(part for part in plain if not unicodedata.combining(part))
    return plain if plain and set(plain) <= _letters_of_default() else _BOX


@lru_cache(maxsize=64)
def _families(missing: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the fonts that have the missing letters, and the letters that no font has."""
    families: list[str] = []
    for family, path in _installed():
        if not missing:
            break
        if found := missing & _letters(path):
            families.append(family)
            missing -= found
    return tuple(families), missing


@lru_cache(maxsize=1)
def _installed() -> tuple[tuple[str, str], ...]:
    """Return family and path of upright fonts of regular weight, the preferred ones first."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in font_manager.findSystemFonts():  # the manager's own list may be an old one
        if path not in known:
            try:
                manager.addfont(path)
            except (OSError, RuntimeError, ValueError):
                continue  # not a font that matplotlib can read
    entries = {
        (entry.name, entry.fname)
        for entry in manager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular", "book")
        and not entry.name.startswith(_NO_TEXT_FONTS)
    }

    def preference(entry: tuple[str, str]) -> tuple[bool, bool, str, str]:
        name, path = entry
        return not name.startswith("Noto Sans"), not name.startswith("Noto"), name, path

    return tuple(sorted(entries, key=preference))


@lru_cache(maxsize=256)
def _letters(path: str) -> frozenset[str]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _letters_of_default() -> frozenset[str]:
    from matplotlib.font_manager import findfont

    return _letters(findfont(_DEFAULT))
