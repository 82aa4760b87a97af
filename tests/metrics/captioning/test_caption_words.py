"""Words of captions, statements of no change, and what is wrong with a caption."""

import pytest

from lightning_plugins.metrics.captioning.caption_faults import caption_faults
from lightning_plugins.metrics.captioning.caption_words import caption_words, states_no_change


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("Trees, roads and a house.", "trees roads and a house"),
        ("it isn't there; the road's gone!", "it is n't there the road 's gone"),
        (
            "a two-storey house (new) at 3.5 m, 1,000 trees",
            "a two-storey house new at 3.5 m 1,000 trees",
        ),
        ('"yes" - no -- perhaps...', "yes no perhaps"),
        ("", ""),
    ],
)
def test_punctuation_is_separated_and_dropped(sentence, words):
    assert caption_words(sentence) == words.split()


def test_only_full_stops_are_dropped_with_space():
    assert caption_words("Trees, roads .", "space") == ["trees,", "roads"]


@pytest.mark.parametrize(
    "sentence",
    [
        "there is no difference .",
        "the two scenes seem identical",
        "the scene is the same as before",
        "no change has occurred",
        "almost nothing has changed",
        "No difference is visible.",
        "the image has not changed",
        "it hasn't changed",
        "there are no obvious changes between the two images",
        "everything remains unchanged",
        "the place looks as it did before",
        "without any change",
    ],
)
def test_statements_of_no_change(sentence):
    assert states_no_change(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "a house is built",
        "no trees are left",
        "the house is no longer there",
        "nothing has changed except a new house",
        "the road did not change but a house is built",
        "a house was built on the same place",
        "the field has changed into a road",
        "the scene is the same as before, although a road appears",
    ],
)
def test_statements_of_a_change(sentence):
    assert not states_no_change(sentence)


@pytest.mark.parametrize(
    ("caption", "references", "faults"),
    [
        ("a house is built at the top left", ["a villa appears at the upper left corner"], ()),
        ("a road is built", ["a villa appears", "one house is built"], ("category",)),
        ("a house appears at the bottom", ["a house appears at the top"], ("place",)),
        ("a pond appears at the right", ["a tree is gone at the left"], ("category", "place")),
        ("nothing has changed", ["a house is built"], ("existence",)),
        ("a house is built", ["no change", "there is no difference"], ("existence",)),
        ("", ["a house is built"], ("existence",)),
        ("there is no change", ["nothing has changed"], ()),
        ("a house appears at the top", ["a house appears"], ()),
    ],
)
def test_faults_of_captions(caption, references, faults):
    assert caption_faults(caption, references) == faults


def test_a_flag_decides_about_existence():
    assert caption_faults("a house is built", ["a house is built"], changed=False) == ("existence",)
