import base64
import json
import math
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest

from lightning_plugins.reports.html import Element
from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.page import html_page
from lightning_plugins.reports.report_data import (
    RULE_CHANGED,
    ArmInterval,
    OverviewEvidence,
    Report,
    Table,
)

HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def hostile(value):
    """The same evidence with every text replaced by markup."""
    if isinstance(value, str):
        return HOSTILE + value
    if isinstance(value, tuple | list):
        return type(value)(hostile(item) for item in value)
    if isinstance(value, dict):
        return {
            hostile(key) if isinstance(key, str) else key: hostile(x) for key, x in value.items()
        }
    if hasattr(value, "__dataclass_fields__"):
        return replace(value, **{f.name: hostile(getattr(value, f.name)) for f in fields(value)})
    return value


def test_no_text_of_the_evidence_becomes_markup(evidence):
    clean = Elements(html_page(evidence.report(failures=("it broke",))))
    attacked = Elements(html_page(hostile(evidence.report(failures=("it broke",)))))
    assert [tag for tag, _ in attacked.found] == [tag for tag, _ in clean.found]
    assert "<script>alert('x')</script>" in attacked.text
    for _, attributes in attacked.found:
        assert not any(name.startswith("on") for name in attributes)


def test_the_page_has_no_external_resources(evidence):
    page = html_page(evidence.report())
    for tag, attributes in Elements(page).found:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "srcset"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
    assert "url(" not in page
    assert "@import" not in page


def test_each_claim_has_a_light_and_a_dark_figure_with_alternative_text(evidence):
    found = Elements(html_page(evidence.report(evidence.claim(), evidence.claim(name="b")))).found
    images = [attributes for tag, attributes in found if tag == "img"]
    assert len(images) == len([tag for tag, _ in found if tag == "source"]) == 2
    for image in images:
        assert "λ_max by arm and seed" in image["alt"]
        svg = base64.b64decode(image["src"].partition(",")[2])
        assert b"<svg" in svg
        assert b"<script" not in svg


def test_links_of_the_summary_point_to_their_claims(evidence):
    found = Elements(html_page(evidence.report(evidence.claim(), evidence.claim(name="b")))).found
    identifiers = {attributes["id"] for _, attributes in found if "id" in attributes}
    links = {a["href"][1:] for tag, a in found if tag == "a" and a["href"].startswith("#")}
    assert links == identifiers
    assert len(links) == 2


def test_raw_rows_can_be_downloaded(evidence):
    page = html_page(evidence.report(rows=({"arm": "SGD", "value": float("nan")},)))
    (link,) = re.findall(r'href="data:application/json;base64,([^"]+)"', page)
    assert json.loads(base64.b64decode(link)) == [{"arm": "SGD", "value": None}]


def test_a_changed_rule_is_shown_next_to_the_verdict(evidence):
    assert RULE_CHANGED not in html_page(evidence.report())
    assert RULE_CHANGED in html_page(evidence.report(evidence.claim(rule_changed=True)))


def test_a_verdict_names_the_seeds_that_it_leaves_out(evidence):
    shown = "supported (2 of 5 seeds have no value and are left out)"
    report = evidence.report(evidence.claim(dropped=2))
    assert shown in html_page(report)
    assert markdown_page(report).count(shown) == 2  # in the table and in the claim's section
    assert "left out" not in html_page(evidence.report())


def test_a_claim_without_values_has_no_figure(evidence):
    page = html_page(evidence.report(evidence.claim(arms={"SGD": {}}, contrasts=())))
    assert "<img" not in page


def test_the_first_lines_give_the_number_of_claims_per_verdict(evidence):
    claims = (evidence.claim(verdict="supported"), *(evidence.claim(verdict="undecided"),) * 2)
    report = evidence.report(*claims)
    assert report.meaning[0] == "Of 3 claims: 2 undecided, 1 supported."
    assert markdown_page(report).splitlines()[2:5] == list(report.meaning)
    text = html_page(report)
    assert text.index("</h1>") < text.index(report.meaning[0]) < text.index("Command:")


def test_an_empty_report_is_a_valid_page():
    assert "<h1>" in html_page(Report("Claims", "command", "now", {}, ()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Element("script", "alert(1)"),
        lambda: Element("p", onclick="alert(1)"),
        lambda: Element("style", "</style><script>"),
        lambda: Element("p onload=x"),
        lambda: Element("img", "child"),
    ],
)
def test_html_that_cannot_be_escaped_is_refused(make):
    with pytest.raises(ValueError, match=r"."):
        str(make())


def test_attributes_are_escaped():
    assert str(Element("a", "x", title='"><b>')) == '<a title="&quot;&gt;&lt;b&gt;">x</a>'


def test_tables_show_every_cell(evidence):
    tables = (Table(("A", "B"), (("Q", "W"),), "first"), Table(("C",), (("X",), ("Y",)), "second"))
    base = evidence.report()
    paper = replace(base.papers[0], tables=tables)
    page = Elements(html_page(replace(base, papers=(paper,))))
    assert all(cell in page.text for cell in ("first", "A", "B", "Q", "W", "second", "X", "Y"))
    assert [tag for tag, _ in page.found].count("caption") == 2


OVERVIEW = OverviewEvidence(
    title="Accuracy under attack",
    metric="AUA %",
    caption="One row an arm.",
    arms=(
        ArmInterval("noise on", (20.0, 30.0), 25.0, (-38.5, 88.5)),
        ArmInterval("one seed", (40.0,), 40.0, (math.nan, math.nan)),
    ),
    conclusions=("Noise helps. Not supported: a - b: 1 [0, 2].",),
)


@pytest.fixture
def with_overview(evidence):
    found = evidence.report()
    (paper,) = found.papers
    return replace(found, papers=(replace(paper, overview=OVERVIEW),))


def test_the_overview_is_the_first_figure_and_lists_the_conclusions(with_overview):
    page = Elements(html_page(with_overview))
    first, second = [attributes for tag, attributes in page.found if tag == "img"]
    assert first["alt"] == "AUA %: noise on 25; one seed 40"
    assert "by arm and seed" in second["alt"]
    assert OVERVIEW.conclusions[0] in page.text


def test_no_text_of_the_overview_becomes_markup(with_overview):
    clean, attacked = (
        Elements(html_page(with_overview)),
        Elements(html_page(hostile(with_overview))),
    )
    assert [tag for tag, _ in attacked.found] == [tag for tag, _ in clean.found]


def test_the_markdown_contains_the_numbers_of_the_overview(with_overview):
    lines = markdown_page(with_overview).splitlines()
    assert "| noise on | 25.0 | -38.5 | 88.5 | 2 |" in lines
    assert "| one seed | 40.0 | - | - | 1 |" in lines
    assert "- Noise helps. Not supported: a - b: 1 \\[0, 2\\]." in lines
