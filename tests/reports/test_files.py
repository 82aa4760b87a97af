import csv
import io
import os
import re

import pytest

from lightning_plugins.reports import write_report
from lightning_plugins.reports.claim_figures import paired_figure
from lightning_plugins.reports.markdown import markdown_page
from lightning_plugins.reports.raw_rows import rows_as_csv, rows_as_json
from lightning_plugins.reports.writer import write_text_atomically


def test_a_report_consists_of_two_pages_and_the_rows_of_each_paper(evidence, tmp_path):
    path = write_report(evidence.report(), tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert sorted(os.listdir(path.parent)) == ["report.html", "report.md", "rows"]
    assert os.listdir(path.parent / "rows") == ["late-sam.csv"]
    rows = list(csv.DictReader((path.parent / "rows" / "late-sam.csv").open(newline="")))
    assert rows == [{"arm": "SGD", "seed": "0", "lambda_max": "1.6"}]


def test_an_interrupted_write_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_text_atomically(path, "old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_the_permissions_of_a_report_follow_the_umask(evidence, tmp_path):
    before = os.umask(0o027)
    try:
        path = write_report(evidence.report(), tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_text_cannot_break_out_of_a_markdown_cell(evidence):
    name = "a | b\n# heading [link](x) `code` <b>"
    page = markdown_page(evidence.report(evidence.claim(name=name)))
    (row,) = [line for line in page.splitlines() if line.startswith("| late-sam")]
    assert row.replace("\\|", "").count("|") == 8
    assert "\n# heading" not in page
    assert "<b>" not in page


@pytest.mark.parametrize("text", ["- a list", "1. a list", "---", "=== x", "$x$", "![a](b)"])
def test_a_markdown_paragraph_stays_a_paragraph(evidence, text):
    page = markdown_page(evidence.report(evidence.claim(statement=text)))
    assert text not in page.splitlines()
    assert text in re.sub(r"\\(.)", r"\1", page).splitlines()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_cells_are_never_spreadsheet_formulas(start):
    rows = [{"name": f"{start}cmd()", "value": -1.5}, {"name": f"x{start}=cmd()", "value": 2.0}]
    read = list(csv.reader(io.StringIO(rows_as_csv(rows), newline="")))
    assert read == [["name", "value"], [f"'{start}cmd()", "-1.5"], [f"x{start}=cmd()", "2.0"]]


def test_nan_and_infinity_are_null_in_json():
    assert "NaN" not in rows_as_json([{"a": float("nan"), "b": [float("inf")]}])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_same_evidence_is_drawn_to_the_same_bytes(evidence, theme):
    assert paired_figure(evidence.claim(), theme) == paired_figure(evidence.claim(), theme)


def test_a_dollar_sign_in_a_name_is_drawn_literally(evidence):
    arms = {"$x_{": {0: 1.0, 1: 2.0}, "b$": {0: 1.0, 1: 2.0}}
    assert b"<svg" in paired_figure(evidence.claim(arms=arms, metric="$"))
    assert paired_figure(evidence.claim(), kind="png").startswith(b"\x89PNG")


def test_a_figure_with_a_missing_value_is_drawn(evidence):
    arms = {"SGD": {0: 1.0, 1: float("nan")}, "late SAM": {1: 2.0}}
    assert b"<svg" in paired_figure(evidence.claim(arms=arms))


def test_without_matplotlib_nothing_is_written_and_the_error_names_it(
    evidence, tmp_path, monkeypatch
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "matplotlib>=3\.8\.4"'):
        write_report(evidence.report(), tmp_path)
    assert not os.listdir(tmp_path)
