import pytest

from lightning_plugins.reports.markdown import _escaped
from lightning_plugins.reports.raw_rows import rows_as_csv


@pytest.mark.parametrize(
    "text", ["@user", "cc @org/team!", "http://host", "https://host", "HTTP://host", "www.host.org"]
)
def test_mentions_and_bare_links_are_only_text_in_markdown(text):
    escaped = _escaped(text)
    assert "@user" not in escaped
    assert "@org" not in escaped
    assert "://" not in escaped
    assert "www." not in escaped


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
@pytest.mark.parametrize("before", ["", " ", "\u3000"])
def test_a_cell_that_starts_a_formula_gets_an_apostrophe(before, sign):
    cell = f"{before}{sign}cmd"
    assert f"'{cell}" in rows_as_csv([{"name": cell}])
    assert f"'{cell}" in rows_as_csv([{cell: 1.0}])


def test_a_negative_number_stays_a_number():
    assert rows_as_csv([{"x": -1.5}]).splitlines()[1] == "-1.5"
