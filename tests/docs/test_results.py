"""The committed results agree with each other and with the claims in the code."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from lightning_plugins.claims.papers import PAPERS, load_paper
from lightning_plugins.reports.markdown import _escaped, _paragraph

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pictures.py imports results_index
    spec.loader.exec_module(module)
    return module


results_index = script("results_index")
PAGES = results_index.pages()


# Pages of runs before rates were tuned on another seed.
TUNED = (
    "rates of each arm tuned on a seed that does not judge",
    "rates tuned for each seed and arm",
)


def test_the_picture_and_the_table_are_computed_from_the_pages():
    assert results_index.main(["--check"]) == 0, "run: python scripts/results_index.py"


def test_the_pictures_are_drawn_from_the_pages():
    assert script("pictures").main(["--check"]) == 0, "run: python scripts/pictures.py"


def test_every_page_has_its_own_title():
    for page in PAGES:
        name = results_index.claims_of(page)[0][0]
        assert page.read_text("utf-8").startswith(f"# {name}: claims, re-measured\n")


def test_every_paper_has_a_page_with_a_computed_verdict():
    papers = {cells[0] for page in PAGES for cells in results_index.claims_of(page)}
    assert papers == set(PAPERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_every_claim_that_its_paper_judges_at_cpu_scale(page):
    rows = results_index.claims_of(page)
    paper = load_paper(rows[0][0]).at("cpu")
    claims = sorted(paper.claims, key=lambda claim: claim.is_ours)
    assert [cells[1].replace("\\", "") for cells in rows] == [one.name for one in claims]
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
        assert f"- family: {'ours' if claim.is_ours else 'claims of the paper'}" in section
        regimes = claim.regime, claim.regime.replace(*TUNED)
        assert any(f"- regime: {_escaped(one)} (scale cpu" in section for one in regimes)


def test_the_picture_has_every_claim_in_units_of_its_smallest_effect():
    (page,) = (page for page in PAGES if page.name == "fiber_laser.md")
    claims = results_index.measured_claims(page)
    first = next(claim for claim in claims if claim.name == "more than 120 W")
    assert first.effect == (15.3, 6.6, 24.0)  # W, of which 1 is the smallest
    assert not first.is_ours
    drawn = results_index.picture(claims)
    assert drawn.count("<circle") + drawn.count("<rect") == len(claims) + 3 + 1  # key, background
    assert first.name in drawn


def test_a_page_without_a_summary_table_raises_an_error(tmp_path):
    page = tmp_path / "typed.md"
    page.write_text("# Results\n\nall is well\n")
    with pytest.raises(ValueError, match=r"typed\.md has no front table"):
        results_index.claims_of(page)
