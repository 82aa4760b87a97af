import dataclasses
import json
import math

import pytest

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.cell import checked_cell
from lightning_plugins.claims.result_store import (
    CellIdentity,
    CellRecord,
    ResultStore,
    plain_record,
)
from lightning_plugins.claims.row_files import REPOSITORY_ROWS, RowFiles

IDENTITY = CellIdentity(
    paper="p",
    experiment="e",
    arm="sgd",
    scale="smoke",
    seed=0,
    config={"recipe": ("a", "b"), "overrides": {"x": 1}},
    source_sha256="0" * 64,
    versions={"torch": "2.6"},
)
RECORD = CellRecord(
    identity=IDENTITY,
    metrics={"loss": 0.1 + 0.2, "diverged": math.nan},
    series={"curve": [1.0, math.inf]},
    rules={"claim": "abc"},
    seconds=1.5,
    finished="2026-11-23T00:00:00+00:00",
)


def test_a_record_is_loaded_bit_for_bit_with_non_finite_values_as_nan(tmp_path):
    store = ResultStore(tmp_path / "new")
    assert store.load(IDENTITY) is None
    store.save(RECORD)
    loaded = store.load(IDENTITY)
    assert loaded.metrics["loss"] == RECORD.metrics["loss"]
    assert math.isnan(loaded.metrics["diverged"])
    assert math.isnan(loaded.series["curve"][1])
    assert loaded.rules == RECORD.rules
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{IDENTITY.key}.json"]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(CellIdentity)])
def test_the_key_depends_on_every_part_of_the_identity(field):
    changed = {
        "seed": 1,
        "config": {"recipe": ["a", "b"], "overrides": {"x": 2}},
        "versions": {"torch": "2.7"},
    }.get(field, "different")
    assert dataclasses.replace(IDENTITY, **{field: changed}).key != IDENTITY.key


def test_the_key_ignores_the_order_of_the_configuration():
    config = {"overrides": {"x": 1}, "recipe": ["a", "b"]}
    assert dataclasses.replace(IDENTITY, config=config).key == IDENTITY.key


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"format": 1}', "\udcff", "OTHER", "HALF"],
)
def test_an_unreadable_record_causes_a_warning_and_counts_as_missing(tmp_path, content):
    store = ResultStore(tmp_path)
    store.save(RECORD)
    path = store.path(IDENTITY)
    whole = path.read_text()
    if content == "OTHER":
        stored = json.loads(whole)
        stored["identity"]["seed"] = 5
        content = json.dumps(stored)
    elif content == "HALF":
        content = whole[: len(whole) // 2]
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.warns(UserWarning, match=IDENTITY.key):
        assert store.load(IDENTITY) is None


@pytest.mark.parametrize(
    "cell", [None, [], {}, {"metrics": [1]}, {"metrics": {"a": "x"}}, {"metrics": {"a": None}}]
)
def test_a_run_that_returns_something_other_than_a_cell_is_refused(cell):
    with pytest.raises(ValueError, match="metrics"):
        checked_cell(cell)


def test_numpy_numbers_become_plain_floats():
    import numpy as np

    metrics, series = checked_cell(
        {"metrics": {"a": np.float32(0.5)}, "series": {"b": [np.int64(1)]}}
    )
    assert type(metrics["a"]) is float
    assert series == {"b": [1.0]}


def test_committed_rows_are_reused_like_the_cells_they_come_from(tmp_path):
    rows = RowFiles(tmp_path / "rows")
    record = dataclasses.replace(RECORD, sources=("lightning_plugins.callbacks.late_sam",))
    assert rows.add("p", [plain_record(record)]) == 1
    assert rows.add("p", [plain_record(record)]) == 0
    loaded = ResultStore(tmp_path / "none", RowFiles(tmp_path / "rows")).load(IDENTITY)
    assert loaded.metrics["loss"] == RECORD.metrics["loss"]
    assert math.isnan(loaded.metrics["diverged"])
    assert loaded.rules == RECORD.rules
    other = dataclasses.replace(IDENTITY, seed=1)
    assert ResultStore(tmp_path / "none", RowFiles(tmp_path / "rows")).load(other) is None
    sources = json.loads((tmp_path / "rows" / "sources.json").read_text())
    assert sources.pop(IDENTITY.source_sha256) == ["lightning_plugins.callbacks.late_sam"]
    assert len(sources) == 3
    assert RECORD.rules in sources.values()
    (tmp_path / "rows" / "sources.json").write_text("{}")
    with pytest.raises(ValueError, match=r"sources.json lacks '[0-9a-f]{16}'"):
        RowFiles(tmp_path / "rows").records("p")


def test_a_committed_row_of_another_cell_is_not_reused(tmp_path):
    rows = RowFiles(tmp_path)
    rows.add("p", [plain_record(RECORD)])
    path = tmp_path / "p.csv"
    path.write_text(path.read_text().replace('""seed"":0', '""seed"":5'))
    with pytest.warns(UserWarning, match="another cell"):
        assert ResultStore(tmp_path / "none", RowFiles(tmp_path)).load(IDENTITY) is None
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns"):
        RowFiles(tmp_path).records("p")


@pytest.mark.parametrize("name", [path.stem for path in REPOSITORY_ROWS.glob("*.csv")])
def test_the_committed_rows_have_the_keys_and_the_configurations_of_their_cells(name):
    paper = load_paper(name)
    texts = RowFiles(REPOSITORY_ROWS).records(name)
    sources = json.loads((REPOSITORY_ROWS / "sources.json").read_text())
    for key, text in texts.items():
        cell = json.loads(text)["identity"]
        assert key == CellIdentity(**cell).key
        assert cell["config"] == paper.experiment(cell["experiment"]).config(
            cell["arm"], cell["scale"]
        )
        assert sources[cell["source_sha256"]]
    assert texts
