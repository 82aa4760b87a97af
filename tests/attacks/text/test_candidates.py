"""Candidates compared with the definitions of TextAttack's word swaps."""

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.attacks.text import WordNet, deep_word_bug, pruthi, text_bugger
from lightning_plugins.attacks.text.characters import (
    HOMOGLYPHS,
    deletions,
    edit_distance,
    insertions,
    keyboard_slips,
    look_alikes,
    substitutions,
    swaps,
)
from lightning_plugins.attacks.text.words import STOP_WORDS, Words

LETTERS = string.ascii_letters


def anywhere(seed=0):
    return random.Random(seed)


def test_swaps_deletions_and_slips_of_a_word_are_those_of_the_definition():
    assert swaps("word") == ["owrd", "wrod", "wodr"]
    assert swaps("word", inner=True) == ["wrod"]
    assert deletions("word") == ["ord", "wrd", "wod", "wor"]
    assert deletions("word", inner=True) == ["wrd", "wod"]
    assert keyboard_slips("aPe", inner=True) == ["aOe", "aLe"]
    assert look_alikes("a-Z") == ["\u0251-Z", "a\u02d7Z"]


def test_insertions_are_before_a_character():
    made = set()
    for seed in range(1000):
        made.update(insertions("ab", anywhere(seed)))
    assert made == {letter + "ab" for letter in LETTERS} | {f"a{letter}b" for letter in LETTERS}
    assert [len(w) for w in insertions("word", anywhere(), inner=True, everywhere=True)] == [5, 5]


@pytest.mark.parametrize("word", ["", "a"])
def test_a_single_character_has_no_candidates(word):
    assert swaps(word) == deletions(word) == keyboard_slips(word) == []
    assert substitutions(word, anywhere()) == insertions(word, anywhere()) == []


def by_definition(word, inner):
    """Return every candidate that TextAttack's swaps can return for any random choice."""
    first, last = (1, len(word) - 1) if inner else (0, len(word))
    made = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(first, last - 1)}
    made |= {word[:i] + word[i + 1 :] for i in range(first, last)}
    made |= {word[:i] + c + word[i:] for i in range(first, last) for c in LETTERS + " "}
    made |= {word[:i] + c + word[i + 1 :] for i in range(first, last) for c in LETTERS}
    return made


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=2, max_size=12), st.integers(0, 1000))
def test_candidates_are_a_subset_of_the_definition_for_any_word(word, seed):
    made = deep_word_bug.candidates(word, anywhere(seed))
    assert set(made) <= by_definition(word, inner=False) - {word}
    assert len(made) <= 4
    assert set(pruthi.candidates(word, anywhere(seed))) <= by_definition(word, inner=True)
    alike = {
        word[:i] + HOMOGLYPHS[c] + word[i + 1 :] for i, c in enumerate(word) if c in HOMOGLYPHS
    }
    bugs = text_bugger.candidates(word, anywhere(seed))
    assert set(bugs) <= by_definition(word, inner=True) | alike
    assert len(bugs) <= 4


def test_typing_errors_keep_both_ends_and_exclude_short_words():
    assert pruthi.candidates("cat", anywhere()) == []
    made = pruthi.candidates("Cats", anywhere())
    assert all(word[0] == "C" and word[-1] == "s" for word in made)
    # 1 swap, 2 deletions, 2 insertions, 5 + 5 keys around a and t
    assert len(made) == 15


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=8), st.text(max_size=8))
def test_the_edit_distance_equals_that_of_the_recursion(a, b):
    def recursive(a, b):
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return recursive(a[1:], b[1:])
        return 1 + min(recursive(a[1:], b), recursive(a, b[1:]), recursive(a[1:], b[1:]))

    a, b = a[:4], b[:4]
    assert edit_distance(a, b) == recursive(a, b)


def test_the_stop_words_are_the_179_of_nltk():
    assert len(STOP_WORDS) == 179


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_splitting_a_text_loses_nothing(text):
    words = Words.of(text)
    assert words.text == text
    assert len(words.gaps) == len(words) + 1


def test_words_are_those_of_text_attack_on_english():
    text = "Don't stop -- the well-known 'quoted' _name_ of 3.5 e-mails, naïve?"
    found = [
        "Don't",
        "stop",
        "the",
        "well-known",
        "quoted'",
        "name_",
        "of",
        "3",
        "5",
        "e-mails",
        "naïve",
    ]
    assert list(Words.of(text).words) == found


def test_synonyms_are_the_one_word_members_of_a_synset(wordnet):
    lexicon = WordNet(wordnet)
    assert lexicon.synonyms("Tapestry") == ["arras", "tapestry"]
    assert lexicon.synonyms("tapestry") == ["arras"]
    assert lexicon.synonyms("wall_hanging") == ["arras", "tapestry"]
    assert lexicon.synonyms("rich") == ["Rich", "galore"]
    assert lexicon.synonyms("cloud") == []


def test_inflected_words_have_the_synonyms_of_their_lemmas(wordnet, tmp_path):
    (tmp_path / "verb.exc").write_text("dug dig\n", encoding="utf-8")
    lexicon = WordNet(wordnet)
    assert lexicon.synonyms("tapestries") == ["arras", "tapestry"]
    assert lexicon.synonyms("Delves") == lexicon.synonyms("delved") == ["delve", "dig"]
    assert lexicon.synonyms("delving") == lexicon.synonyms("dug") == ["delve", "dig"]
    assert lexicon.synonyms("richest") == ["Rich", "galore"]
    assert lexicon.parts("tapestries") == ["noun"]
    assert lexicon.lemmas("tapestries", "verb") == []
    assert lexicon.lemmas("digging", "verb") == ["dig"]
    assert lexicon.synonyms("delves", "noun") == []


def test_frequent_irregular_forms_are_known_without_the_lists_of_exceptions(wordnet, tmp_path):
    with (tmp_path / "data.verb").open("a") as file:
        file.write("00005 36 v 02 make 0 create 0 000 | x\n")
    assert WordNet(wordnet).synonyms("made") == ["create", "make"]
    (tmp_path / "verb.exc").write_text("dug dig\n", encoding="utf-8")
    assert WordNet(wordnet).synonyms("made") == []


def test_nearly_all_words_of_wordnet_are_found_in_their_inflected_forms():
    try:
        lexicon = WordNet()
    except FileNotFoundError:
        pytest.skip("needs WordNet's files in a usual folder")
    forms = {"cities": "city", "made": "make", "larger": "large", "stopping": "stop", "men": "man"}
    for form, lemma in forms.items():
        assert set(lexicon.synonyms(lemma)) - {form} <= {*lexicon.synonyms(form), lemma}


@pytest.mark.parametrize(
    ("text", "count"),
    [("हिन्दी में लिखा हुआ पाठ", 5), ("cafe\u0301 noir", 2), ("می\u200cخواهم بروم", 2), ("สวัสดี", 1)],
)
def test_words_keep_their_combining_marks(text, count):
    assert len(Words.of(text)) == count
    assert Words.of(text).text == text


def test_a_missing_or_broken_wordnet_raises_an_error(wordnet, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*wordnet-base"):
        WordNet("nowhere")
    (tmp_path / "data.adv").write_text("00004 02 r 02 moreover 0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"data\.adv, line 1"):
        WordNet(wordnet)
