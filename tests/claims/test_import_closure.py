"""A cell is reused until something that its run imports changes."""

import shutil
import subprocess
import sys

import pytest

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.import_closure import (
    closure_of_run,
    import_closure,
    package_modules,
)
from lightning_plugins.claims.papers import PAPERS


@pytest.fixture(scope="module")
def closures():
    """The import closure of every cell that this package computes, by paper."""
    found = {}
    for name in PAPERS:
        paper = load_paper(name).at("cpu")
        found[name] = [
            closure_of_run(one.run, one.config(arm, "cpu"))
            for one in paper.experiments
            for arm in one.arms
        ]
    return found


def of(closures, paper):
    return {name for closure in closures[paper] for name in closure.files}


def test_a_closure_contains_what_the_run_uses(closures):
    late_sam = of(closures, "late-sam")
    for module in (
        "claims.measurements.late_sam",
        "callbacks.late_sam",
        "litmodels.image.classifier",
        "datamodules.digits",
    ):
        assert f"lightning_plugins.{module}" in late_sam
    assert "late_sam/digits" in {name for one in closures["late-sam"] for name in one.recipes}
    assert "lightning_plugins.optimizers.grad_power" in of(closures, "grad-power")


def test_no_cell_depends_on_another_papers_measurement_or_on_any_claim(closures):
    for paper in PAPERS:
        names = of(closures, paper)
        assert not [name for name in names if name.startswith("lightning_plugins.claims.papers")]
        assert not [name for name in names if name.endswith("claims.rules") or ".py" in name]
        assert len(names) < 150
    assert not of(closures, "fiber-laser") & of(closures, "mixture-of-experts") - {
        name for name in of(closures, "fiber-laser") if ".inputs" in name or name.count(".") < 2
    } - {"lightning_plugins.claims.cell"}


@pytest.fixture
def sources(tmp_path):
    """A copy of the package's sources as modules, which a test may change."""
    copies = {}
    for name, path in package_modules().items():
        parts = name.split(".")
        if path.name == "__init__.py":
            parts.append("__init__")
        copies[name] = tmp_path.joinpath(*parts).with_suffix(".py")
        copies[name].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copies[name])
    return copies


def test_only_code_that_the_run_imports_changes_the_hash(sources):
    start = "lightning_plugins.claims.measurements.late_sam"
    texts = ["lightning_plugins.callbacks.LateSAM", "image/digits"]

    def sha256():
        return import_closure(sources[start], texts, sources).sha256()

    before = sha256()
    for name, added, counts in (
        ("callbacks.late_sam", "\nRADIUS = 2\n", True),
        ("callbacks.late_sam", "\n# a comment\n", False),
        ("callbacks.training_phase", "\nx = 1\n", True),
        ("claims.measurements.fiber_laser", "\nx = 1\n", False),
        ("claims.papers.late_sam", "\nx = 1\n", False),
        ("claims.rules", "\nx = 1\n", False),
        ("callbacks.head_scores", "\nx = 1\n", False),
        ("reports", "\nx = 1\n", False),
    ):
        path = sources[f"lightning_plugins.{name}"]
        text = path.read_text()
        path.write_text(text + added)
        assert (sha256() != before) == counts, name
        path.write_text(text)
        assert sha256() == before


def test_a_changed_docstring_does_not_change_the_hash(sources):
    start = sources["lightning_plugins.claims.measurements.fiber_laser"]
    before = import_closure(start, (), sources).sha256()
    path = sources["lightning_plugins.simulators.fiber_laser.fiber"]
    text = path.read_text()
    assert text.startswith('"""')
    path.write_text('"""Another text. ' + text[3:])
    assert import_closure(start, (), sources).sha256() == before


def test_the_file_of_a_run_function_outside_the_package_is_included(synthetic):
    closure = closure_of_run(synthetic.draw, {"recipe": "image/digits+late_sam"})
    assert "synthetic_claims.py" in closure.files
    assert "lightning_plugins.callbacks.late_sam" in closure.files
    assert "image/digits+late_sam" in closure.recipes


def test_hashing_and_listing_import_neither_torch_nor_lightning_nor_scipy():
    code = (
        "import sys, lightning_plugins.claims, lightning_plugins.claims.command, "
        "lightning_plugins.claims.reporting\n"
        "from lightning_plugins.claims.fingerprints import versions\n"
        "from lightning_plugins.claims.import_closure import closure_of_run\n"
        "from lightning_plugins.claims import load_paper\n"
        "run = load_paper('decentralized').experiments[0].run\n"
        "closure = closure_of_run(run)\n"
        "assert versions(closure.packages)['torch'] != 'absent'\n"
        "heavy = {'torch', 'lightning', 'scipy', 'numpy', 'joblib', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
