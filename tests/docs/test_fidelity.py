"""The page on fidelity covers every method and every recipe that follows a paper."""

import fnmatch
import re
from pathlib import Path

import pytest

from lightning_plugins.claims.papers import PAPERS, load_paper

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text("utf-8")
RECIPES = ROOT / "lightning_plugins" / "recipes"
NAMED = re.compile(r"paper|released|published|arxiv|authors", re.IGNORECASE)


def names_on_the_page():
    """Names in code; ``*_keep`` and ``*_minipile`` are patterns, ``+wsd`` an overlay."""
    return [
        name.replace("+", "overlays/") if name.startswith("+") else name
        for name in re.findall(r"`([^`\s]+)`", PAGE)
    ]


def recipes_that_follow_a_paper():
    for path in sorted(RECIPES.rglob("*.yaml")):
        name = path.relative_to(RECIPES).with_suffix("").as_posix()
        first_line = path.read_text("utf-8").partition("\n")[0]
        if NAMED.search(f"{name} {first_line}"):
            yield name


def test_every_recipe_that_follows_a_paper_is_on_the_page():
    patterns = [name if "/" in name else f"*/{name}" for name in names_on_the_page()]
    found = list(recipes_that_follow_a_paper())
    assert len(found) > 15
    missing = [
        name for name in found if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    ]
    assert not missing, "docs/fidelity.md states for each what follows the paper"


def test_every_recipe_on_the_page_exists():
    existing = [
        path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml")
    ]
    folders = {name.partition("/")[0] for name in existing}
    for name in names_on_the_page():
        if name.partition("/")[0] in folders:
            assert fnmatch.filter(existing, name), f"{name} is no recipe"


@pytest.mark.parametrize(
    "card", sorted((ROOT / "docs" / "cards").glob("*.md")), ids=lambda p: p.stem
)
def test_every_card_links_to_the_page(card):
    assert "(../fidelity.md)" in card.read_text("utf-8")


def test_no_two_papers_have_the_same_authors():
    authors = [load_paper(name).citation.partition(";")[0] for name in PAPERS]
    assert len(set(authors)) == len(authors)
