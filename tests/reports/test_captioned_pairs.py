"""Pages and pictures of captioned pairs: text is escaped, and all pairs are present."""

import base64
import dataclasses
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
    scale, before, after, difference = (imread(io.BytesIO(base64.b64decode(u))) for u in found)
    assert scale.shape == (1, 64, 4)
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


def test_all_differences_of_a_page_have_one_scale():
    dark, bright = pair("a"), pair("b")
    dark = dataclasses.replace(dark, difference=np.full((4, 4), 0.0))
    bright = dataclasses.replace(bright, difference=np.full((4, 4), 5.0))
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', captions_page("t", [dark, bright]))
    images = [imread(io.BytesIO(base64.b64decode(uri)))[..., :3] for uri in found]
    assert images[3].max() < 0.05  # an unchanged pair stays dark
    assert images[6].mean() > 0.8
    assert "difference: 0" in captions_page("t", [dark, bright])
    assert "5" in captions_page("t", [dark, bright])


def test_wrong_captions_are_marked_with_their_faults_and_images_are_labelled():
    wrong = dataclasses.replace(pair("a house"), faults=("category", "place"))
    page = captions_page("t", [pair("a road"), wrong])
    assert page.count("claim wrong") == 1
    assert "<dd>category, place</dd>" in page
    assert page.count("<figcaption>difference</figcaption>") == 2
    right = contact_sheet([pair("a house")]).pixels
    assert (contact_sheet([wrong]).pixels != right).any()


def test_pairs_without_a_difference_have_no_scale():
    plain = dataclasses.replace(pair("a house"), difference=None, note="score 0.5")
    page = captions_page("t", [plain])
    assert page.count("<img") == 2
    assert "difference" not in page
    assert "score 0.5" in page
    assert contact_sheet([plain]).png
