"""Corruptions of whole texts compared with their definitions."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.attacks.text import CORRUPTIONS, WordNet, corrupt, corruptions


@pytest.fixture(autouse=True, scope="module")
def small_wordnet(tmp_path_factory):
    """``synonyms`` reads a WordNet with two adverbs and two nouns."""
    folder = tmp_path_factory.mktemp("wordnet")
    lines = {"noun": "00001 06 n 02 friend 0 ally 0 000 | a\n", "verb": "", "adj": ""}
    lines["adv"] = "00002 02 r 02 moreover 0 furthermore 0 000 | b\n"
    for part, text in lines.items():
        (folder / f"data.{part}").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruptions, "_wordnet", lambda: WordNet(str(folder)))
        yield


TEXT = "The cat saw an owl. It was 42 years old!  Because of a friend, people knew."
WHOLE = {
    "article_deletion": "cat saw owl. It was 42 years old!  Because of friend, people knew.",
    "case_swap": "the Cat Saw An Owl. it Was 42 Years Old!  because Of A Friend, People Knew.",
    "misspellings": "The cat saw an owl. It was 42 years old!  Becuase of a freind, poeple knew.",
    "paragraphs": TEXT.replace(". I", ".\n\nI").replace("!  B", "!\n\nB"),
    "whitespace": TEXT.replace("!  ", "!\0").replace(" ", "  ").replace("\0", "  "),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_share_of_one_equals_the_definition(kind):
    assert corrupt(kind, TEXT, 1.0) == WHOLE[kind]


def test_look_alikes_zero_width_spaces_and_digits_change_every_position():
    letters = string.ascii_letters.replace("x", "")
    replaced = corrupt("homoglyphs", letters, 1.0)
    assert not set(replaced) & set(letters)
    assert len(set(replaced)) == len(letters)
    assert corrupt("zero_width_spaces", "a b", 1.0) == "a\u200b b\u200b"
    changed = corrupt("number_swap", TEXT, 1.0)
    digits = changed[TEXT.index("42") :][:2]
    assert digits.isdigit()
    assert digits[0] != "4"
    assert digits[1] != "2"
    assert changed.replace(digits, "42") == TEXT


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_requested_share_of_positions_is_changed(kind):
    # 40 positions of each kind; many more of letters and characters
    text = "The 7 friends of moreover gray. " * 40
    assert corrupt(kind, text, 0.0) == text
    half = corrupt(kind, text, 0.5, seed=1)
    assert half == corrupt(kind, text, 0.5, seed=1)
    assert half != corrupt(kind, text, 0.5, seed=2) or kind in ("misspellings", "synonyms")
    if kind == "number_swap":
        assert half.count("7") == 20


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(CORRUPTIONS)), st.text(), st.floats(0, 1))
def test_any_text_is_accepted(kind, text, share):
    assert isinstance(corrupt(kind, text, share), str)


def test_spellings_are_replaced_by_those_of_the_other_side_of_the_atlantic():
    american = "Gray colors? The Organization realized my neighbor traveled toward the center."
    british = "Grey colors? The Organisation realised my neighbour travelled towards the centre."
    assert corrupt("alternative_spelling", american, 1.0) == british
    assert corrupt("alternative_spelling", british, 1.0) == american


def test_synonyms_keep_the_case_and_leave_stop_words_and_unknown_words():
    text = "Moreover, my friend said: moreover."
    assert corrupt("synonyms", text, 1.0) == "Furthermore, my ally said: furthermore."
    assert corrupt("synonyms", "It is what it is.", 1.0) == "It is what it is."


def test_a_wrong_argument_is_named():
    with pytest.raises(ValueError, match=r"kind='typos'.*whitespace"):
        corrupt("typos", TEXT, 0.1)
    with pytest.raises(ValueError, match="share=2"):
        corrupt("whitespace", TEXT, 2)
