"""The committed results agree with each other and with the claims in the code."""

import importlib.util
import re
from pathlib import Path

import pytest

from lightning_plugins.claims.papers import PAPERS, load_paper
from lightning_plugins.reports.markdown import _escaped, _paragraph

SCRIPT = Path(__file__).parents[2] / "scripts" / "results_index.py"
spec = importlib.util.spec_from_file_location("results_index", SCRIPT)
results_index = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_index)
PAGES = results_index.pages()


def test_the_summary_table_is_computed_from_the_pages():
    assert results_index.main(["--check"]) == 0, "run: python scripts/results_index.py"


def test_every_paper_has_a_page_with_a_computed_verdict():
    papers = {cells[0] for page in PAGES for cells in results_index.claims_of(page)}
    assert papers == set(PAPERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_every_claim_that_its_paper_judges_at_cpu_scale(page):
    rows = results_index.claims_of(page)
    paper = load_paper(rows[0][0]).at("cpu")
    assert [cells[1].replace("\\", "") for cells in rows] == [one.name for one in paper.claims]
    assert all(cells[3] and cells[4] for cells in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_states_each_claim_and_rule_as_the_code_does(page):
    sections = re.split("^### ", page.read_text("utf-8"), flags=re.MULTILINE)[1:]
    paper = load_paper(results_index.claims_of(page)[0][0]).at("cpu")
    for claim, section in zip(paper.claims, sections, strict=True):
        lines = section.splitlines()
        assert lines[0] == _escaped(claim.name)
        assert lines[2] == _paragraph(claim.statement)
        figure = _escaped(f"{claim.paper_figure} ({claim.source})")
        assert f"- the paper: {figure}" in lines
        assert f"- rule: {_escaped(claim.rule.describe())}" in lines
        assert f"- rule hash: `{claim.rule_sha256}`" in lines
        assert f"- regime: {_escaped(claim.regime)} (scale cpu" in section


def test_a_page_without_a_summary_table_raises_an_error(tmp_path):
    page = tmp_path / "typed.md"
    page.write_text("# Results\n\nall is well\n")
    with pytest.raises(ValueError, match=r"typed\.md has no front table"):
        results_index.claims_of(page)
