import csv
import io
import os

import pytest

from lightning_plugins.reports import write_report
from lightning_plugins.reports.atomic import write_text_atomically
from lightning_plugins.reports.figures import paired_figure
from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.raw_rows import rows_as_csv, rows_as_json


def test_a_report_is_two_files_and_nothing_else(evidence, tmp_path):
    path = write_report(evidence.report(), tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert sorted(os.listdir(path.parent)) == ["report.html", "report.md"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_text_atomically(path, "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_markdown_cells_cannot_leave_their_cell(evidence):
    name = "a | b\n# heading [link](x) `code` <b>"
    page = markdown_page(evidence.report(evidence.claim(name=name)))
    (row,) = [line for line in page.splitlines() if line.startswith("| late-sam")]
    assert row.replace("\\|", "").count("|") == 8
    assert "\n# heading" not in page
    assert "<b>" not in page


def test_spreadsheets_see_no_formula():
    rows = [{"name": "=cmd()", "value": -1.5}, {"name": "@x", "value": 2.0}]
    read = list(csv.reader(io.StringIO(rows_as_csv(rows))))
    assert read == [["name", "value"], ["'=cmd()", "-1.5"], ["'@x", "2.0"]]


def test_numbers_that_are_not_finite_are_null():
    assert "NaN" not in rows_as_json([{"a": float("nan"), "b": [float("inf")]}])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_is_a_function_of_its_evidence(evidence, theme):
    assert paired_figure(evidence.claim(), theme) == paired_figure(evidence.claim(), theme)


def test_a_dollar_in_a_name_is_no_formula_of_the_figure(evidence):
    arms = {"$x_{": {0: 1.0, 1: 2.0}, "b$": {0: 1.0, 1: 2.0}}
    assert b"<svg" in paired_figure(evidence.claim(arms=arms, metric="$"))
    assert paired_figure(evidence.claim(), kind="png").startswith(b"\x89PNG")


def test_a_missing_value_leaves_the_others(evidence):
    arms = {"SGD": {0: 1.0, 1: float("nan")}, "late SAM": {1: 2.0}}
    assert b"<svg" in paired_figure(evidence.claim(arms=arms))


def test_without_matplotlib_nothing_is_written_and_the_extra_is_named(
    evidence, tmp_path, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "lightning-plugins\[report\]"'):
        write_report(evidence.report(), tmp_path)
    assert not os.listdir(tmp_path)
