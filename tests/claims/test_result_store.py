import dataclasses
import json
import math
import shutil
import subprocess
import sys

import pytest

from lightning_plugins.claims import fingerprints
from lightning_plugins.claims.result_store import (
    CellIdentity,
    CellRecord,
    ResultStore,
    checked_cell,
)

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


def test_the_hashed_sources_are_all_package_files_except_reports():
    names = fingerprints._package_files()
    assert {"__init__.py", "claims/rules.py", "callbacks/__init__.py"} <= names.keys()
    assert {"datamodules/__init__.py", "litmodels/__init__.py", "simulators/__init__.py"} <= set(
        names
    )
    assert not [name for name in names if name.startswith(("reports", "tests"))]


def test_changing_a_source_line_changes_the_hash_and_undoing_it_restores_the_hash(
    tmp_path, monkeypatch
):
    package = tmp_path / "package"
    shutil.copytree(
        fingerprints.Path(fingerprints.lightning_plugins.__file__).parent,
        package,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    monkeypatch.setattr(fingerprints.lightning_plugins, "__file__", str(package / "__init__.py"))
    before = fingerprints.source_sha256()
    for name, counts in (
        ("claims/rules.py", True),
        ("recipes/new.yaml", True),
        ("reports/page.py", False),
        ("recipes/notes.txt", False),
    ):
        path = package / name
        old = path.read_bytes() if path.exists() else None
        path.write_bytes((old or b"") + b"# one line\n")
        assert (fingerprints.source_sha256() != before) == counts, name
        path.unlink() if old is None else path.write_bytes(old)
        assert fingerprints.source_sha256() == before


def test_the_file_of_a_run_function_outside_the_package_is_hashed(synthetic):
    assert fingerprints.source_sha256(synthetic.draw) != fingerprints.source_sha256()


def test_hashing_and_listing_import_neither_torch_nor_lightning_nor_scipy():
    code = (
        "import sys, lightning_plugins.claims, lightning_plugins.claims.command, "
        "lightning_plugins.claims.reporting\n"
        "from lightning_plugins.claims.fingerprints import source_sha256, versions\n"
        "source_sha256(); assert versions()['torch'] != 'absent'\n"
        "heavy = {'torch', 'lightning', 'scipy', 'numpy', 'joblib', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
