"""Lists in the replies of language models, good and bad."""

import pytest

from lightning_plugins.litmodels.recommendation.language.replies import listed_titles

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
def test_the_same_two_titles_are_read_from_every_form(reply):
    found = listed_titles(reply)
    assert found.titles == TITLES
    assert found.problem is None


def test_quotes_brackets_and_commas_may_be_part_of_a_title():
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
def test_a_bad_reply_says_what_is_wrong(reply, is_truncated, titles, problem):
    found = listed_titles(reply, is_truncated)
    assert (found.titles, found.problem) == (titles, problem)


def test_a_flood_of_entries_is_bounded():
    assert len(listed_titles("\n".join(f"{n % 900}. Film {n}" for n in range(5000))).titles) == 200
