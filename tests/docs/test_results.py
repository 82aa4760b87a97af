"""The front table of the results is computed from what runs wrote, and has every paper."""

import importlib.util
from pathlib import Path

import pytest

from lightning_plugins.claims.papers import PAPERS, load_paper

SCRIPT = Path(__file__).parents[2] / "scripts" / "results_index.py"
spec = importlib.util.spec_from_file_location("results_index", SCRIPT)
results_index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_index)
PAGES = results_index.pages()


def test_the_front_table_is_that_of_the_pages():
    assert results_index.main(["--check"]) == 0, "run: python scripts/results_index.py"


def test_every_paper_has_a_page_with_a_computed_verdict():
    papers = {cells[0] for page in PAGES for cells in results_index.claims_of(page)}
    assert papers == set(PAPERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_every_claim_that_its_paper_makes_at_this_scale(page):
    rows = results_index.claims_of(page)
    paper = load_paper(rows[0][0]).at("cpu")
    assert [cells[1].replace("\\", "") for cells in rows] == [one.name for one in paper.claims]
    assert all(cells[3] and cells[4] for cells in rows)


def test_a_page_without_a_front_table_is_refused(tmp_path):
    page = tmp_path / "typed.md"
    page.write_text("# Results\n\nall is well\n")
    with pytest.raises(ValueError, match=r"typed\.md has no front table"):
        results_index.claims_of(page)
