"""A detector whose scores can be computed by hand, and a small WordNet."""

import math
import re

import pytest

MARKERS = {"moreover": 2.0, "delve": 1.5, "tapestry": 1.0}


def linear_detector(texts):
    """Log-odds of AI: -1 and the weights of the marker words."""
    odds = [sum(MARKERS.get(w, 0.0) for w in re.findall(r"\w+", text.lower())) for text in texts]
    return [1 / (1 + math.exp(1 - x)) for x in odds]


@pytest.fixture
def detector():
    return linear_detector


@pytest.fixture
def wordnet(tmp_path):
    """Three synsets in the format of wndb(5)."""
    licence = "  1 This is a line of the licence.  \n"
    files = {
        "noun": "00001 06 n 03 tapestry 0 arras 0 wall_hanging 0 000 | a gloss\n",
        "verb": "00002 30 v 02 delve 0 dig 1 000 01 + 08 00 | to dig\n",
        "adj": "00003 00 s 02 galore(ip) 0 Rich 0 000 | in abundance\n",
        "adv": "00004 02 r 02 moreover 0 furthermore 0 000 | in addition\n",
    }
    for part, lines in files.items():
        (tmp_path / f"data.{part}").write_text(licence + lines, encoding="utf-8")
    return str(tmp_path)
