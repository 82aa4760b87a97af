"""Titles, choices and probabilities in valid, invalid and arbitrary replies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_plugins.litmodels.recommendation.language.replies import (
    chosen_number,
    listed_titles,
    probability,
)

TITLES = ("The Matrix (1999)", "Fargo (1996)")


@pytest.mark.parametrize(
    "reply",
    [
        '["The Matrix (1999)", "Fargo (1996)"]',
        "['The Matrix (1999)', 'Fargo (1996)']",
        '```json\n["The Matrix (1999)", "Fargo (1996)"]\n```',
        '```python\npath = ["The Matrix (1999)", "Fargo (1996)"]\n```\nEnjoy!',
        'Sure! Here it is:\n["The Matrix (1999)", "Fargo (1996)"]\nHave fun.',
        '<think>Maybe ["Heat"]?</think>["The Matrix (1999)", "Fargo (1996)"]',
        "1. The Matrix (1999)\n2. Fargo (1996)",
        "1) **The Matrix (1999)**\n2) **Fargo (1996)**",
        "The path:\n- The Matrix (1999)\n- Fargo (1996)\nEnd.",
        '* "The Matrix (1999)",\n* "Fargo (1996)",',
        "• “The Matrix (1999)”\n• “Fargo (1996)”",
        '[{"title": "The Matrix (1999)", "year": 1999}, {"title": "Fargo (1996)"}]',
        '["The Matrix (1999)", null, 7, "", "Fargo (1996)"]',
        '{"path": ["The Matrix (1999)", "Fargo (1996)"]}',
    ],
)
def test_the_same_two_titles_are_parsed_from_every_form(reply):
    found = listed_titles(reply)
    assert found.titles == TITLES
    assert found.problem is None


def test_quotes_brackets_and_commas_can_be_part_of_a_title():
    reply = """Here: ["[Rec] (2007)", "Don't Look Back", "Good, the Bad and the Ugly, The"]"""
    assert listed_titles(reply).titles == (
        "[Rec] (2007)",
        "Don't Look Back",
        "Good, the Bad and the Ugly, The",
    )


@pytest.mark.parametrize(
    ("reply", "is_truncated", "titles", "problem"),
    [
        ("", False, (), "empty"),
        ("<think>still thinking", False, (), "empty"),
        ("<think>still thinking", True, (), "truncated"),
        ("I'm sorry, but I can't do that.", False, (), "refused"),
        ("As an AI I do not watch films.", False, (), "refused"),
        ("The Matrix, then Fargo.", False, (), "no list"),
        ("[]", False, (), "no list"),
        ("[1, 2, 3]", False, (), "no list"),
        ('["The Matrix (1999)", "Farg', True, (), "truncated"),
        ("1. The Matrix (1999)\n2. Far", True, ("The Matrix (1999)",), "truncated"),
        ("[__import__('os').system('true')]", False, (), "no list"),
        ("[" * 5000, False, (), "no list"),
        ("[" * 3000 + "]" * 3000, False, (), "no list"),
    ],
)
def test_the_problem_of_an_invalid_reply_is_returned(reply, is_truncated, titles, problem):
    found = listed_titles(reply, is_truncated)
    assert (found.titles, found.problem) == (titles, problem)


def test_the_number_of_titles_is_limited():
    assert len(listed_titles("\n".join(f"{n % 900}. Film {n}" for n in range(5000))).titles) == 200


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("0", 0),
        ("1", 1),
        ("1.0", 1),
        ("0.65", 0.65),
        (".7", 0.7),
        ("0,7", 0.7),
        ("70%", 0.7),
        ("62.5 %", 0.625),
        ("The mean is 0.8.", 0.8),
        ("<think>0.1 and 0.2</think>0.15", 0.15),
        ("**0.4**", 0.4),
        ("0.4\n0.4", 0.4),
        ("150%", 1),
        ("1.2", 1),
        ("", None),
        ("high", None),
        ("0.2 or 0.4", None),
        ("-0.3", None),
        ("7", None),
        ("10", None),
        ("Film 1990", None),
        ("I'm sorry", None),
    ],
)
def test_a_probability_is_parsed_or_none(reply, number):
    assert probability(reply) == (number if number is None else pytest.approx(number))


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("4", 4),
        ("4.", 4),
        ("**4**", 4),
        ("Number 4: Film (1999)", 4),
        ("4\n4", 4),
        ("4: 3 Ninjas (1992)", 4),
        ("12", None),
    ],
)
def test_a_chosen_number_is_parsed_from_every_form(reply, number):
    assert chosen_number(reply, 9) == number


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
def test_any_reply_is_parsed_to_titles_without_line_breaks(reply, is_truncated):
    titles = listed_titles(reply, is_truncated).titles
    assert all(isinstance(title, str) and title.strip() for title in titles)
    assert not any("\n" in title for title in titles)


@settings(max_examples=300, deadline=None)
@given(REPLIES)
def test_any_reply_is_parsed_to_a_probability_or_none(reply):
    found = probability(reply)
    assert found is None or 0 <= found <= 1


def test_deep_nesting_raises_no_error():
    listed_titles("[" * 100_000)
    probability("[" * 100_000)
