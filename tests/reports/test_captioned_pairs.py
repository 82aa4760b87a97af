"""Pages and pictures of captioned pairs: text is escaped, and all pairs are present."""

import base64
import io
import re

import numpy as np
import pytest

from lightning_plugins.reports.captioned_pairs import (
    CaptionedPair,
    captions_page,
    contact_sheet,
)

imread = pytest.importorskip("matplotlib.image").imread
HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)> $\\frac$"


def pair(text, references=2):
    draw = np.random.default_rng(0)
    before, after = draw.random((2, 8, 8, 3))
    return CaptionedPair(text, before, after, draw.random((4, 4)), text, (text,) * references)


def test_captions_are_escaped():
    clean, attacked = (captions_page(text, [pair(text)] * 2) for text in ("a house", HOSTILE))
    tags = r"<(/?[a-z0-9]+)"
    assert re.findall(tags, attacked) == re.findall(tags, clean)
    assert "&lt;script&gt;alert('x')" in attacked
    assert "&quot;&amp;&lt;img src=x onerror=alert(1)&gt;" in attacked  # in an attribute


def test_the_page_contains_the_images():
    one = pair("a house")
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', captions_page("t", [one]))
    before, after, difference = (imread(io.BytesIO(base64.b64decode(uri))) for uri in found)
    assert before[..., :3] == pytest.approx(one.before, abs=1 / 255)
    assert after[..., :3] == pytest.approx(one.after, abs=1 / 255)
    assert difference.shape == (4, 4, 4)


def test_a_pair_without_references_and_with_an_empty_caption_is_shown():
    page = captions_page("t", [pair("", references=0)])
    assert "(empty)" in page
    assert "reference" not in page


def test_the_contact_sheet_has_a_row_per_pair_and_accepts_any_text():
    one, three = (contact_sheet([pair(HOSTILE)] * count) for count in (1, 3))
    assert one.png.startswith(b"\x89PNG")
    assert three.pixels.shape[0] == 3 * one.pixels.shape[0]
