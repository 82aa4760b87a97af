import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_plugins.litmodels.recommendation.influence_path import InfluencePath
from lightning_plugins.litmodels.recommendation.path_files import paths_as_csv
from lightning_plugins.reports import run_pictures
from lightning_plugins.reports.markdown import _escaped
from lightning_plugins.reports.raw_rows import rows_as_csv
from lightning_plugins.simulators.fiber_laser.plots import _figure, plot_identification


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


MATHS = "$\\frac$"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: run_pictures.curve_picture([1, 2], {MATHS: [1.0, 2.0]}, {MATHS: 1}),
        lambda: run_pictures.compared_curves_picture([1, 2], {MATHS: [1.0, 2.0]}, MATHS),
        lambda: run_pictures.phase_picture([1, 2], {MATHS: [1.0, 2.0]}, {}, {MATHS: (1, 2)}),
        lambda: run_pictures.heat_map_picture([1, 2], {MATHS: {MATHS: [1.0, 2.0]}}),
        lambda: run_pictures.domain_map_picture(torch.zeros(1, 2), torch.zeros(1).int(), MATHS),
        lambda: _figure(1, 1, MATHS)[0].savefig(io.BytesIO()),
    ],
    ids=["curves", "compared", "phases", "heat map", "domains", "laser"],
)
def test_names_in_pictures_are_not_mathematics(draw):
    draw()  # matplotlib raises a ValueError for invalid mathematics


def test_names_of_measurements_are_not_mathematics():
    values = np.array([1.0, 2.0])
    curve = SimpleNamespace(
        inputs=values, measured=values, relative_error=0.1, path=MATHS, quantity=MATHS
    )
    plot_identification(SimpleNamespace(modelled=[values]), [curve]).savefig(io.BytesIO())


def test_titles_of_paths_are_not_formulas_and_identifiers_are_unchanged():
    path = InfluencePath("p", "-u", "-t", ("=i",), (True,), ("=HYPERLINK()",), "@x", "\uff1dy")
    row = next(csv.DictReader(io.StringIO(paths_as_csv([path]))))
    assert (row["user"], row["target"], row["item"]) == ("-u", "-t", "=i")
    assert (row["title"], row["target_title"], row["problem"]) == (
        "'=HYPERLINK()",
        "'@x",
        "'\uff1dy",
    )
