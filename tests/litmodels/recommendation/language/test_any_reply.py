"""Whatever a model answers is read without an error."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.litmodels.recommendation.language.judge import probability
from lightning_plugins.litmodels.recommendation.language.replies import listed_titles

BRACKETS = ["[", "]", "{", "}", '"', "'", "```", "```json", "(", ",", ":", "<think>", "</think>"]
WORDS = [
    "1.",
    "- ",
    "\n",
    "Heat, The (1995)",
    "\\",
    "\\u00",
    "null",
    "NaN",
    "1e999",
    "\u2028",
    "0.5",
]
PIECES = st.sampled_from([*BRACKETS, *WORDS])
REPLIES = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@settings(max_examples=300, deadline=None)
@given(REPLIES, st.booleans())
def test_titles_are_strings_without_line_breaks(reply, is_truncated):
    titles = listed_titles(reply, is_truncated).titles
    assert all(isinstance(title, str) and title.strip() for title in titles)
    assert not any("\n" in title for title in titles)


@settings(max_examples=300, deadline=None)
@given(REPLIES)
def test_a_judgement_is_a_probability_or_none(reply):
    found = probability(reply)
    assert found is None or 0 <= found <= 1


def test_deep_nesting_is_no_crash():
    listed_titles("[" * 100_000)
    probability("[" * 100_000)
