import json
import os
import signal
import time
import warnings
from dataclasses import replace

import pytest

from lightning_plugins.claims import Superiority
from lightning_plugins.claims import runner as runner_module
from lightning_plugins.claims.import_closure import Closure
from lightning_plugins.claims.reporting import paper_evidence
from lightning_plugins.claims.runner import run_paper

# A child process uses the same fixed source hash as the test's process, so the tests do not fail if
# the package is edited while they run.
FIXED_SOURCES = (
    "from lightning_plugins.claims import runner\n"
    "from lightning_plugins.claims.import_closure import Closure\n"
    "runner.closure_of_run = lambda run, config: Closure({}, {}, frozenset({'torch'}))\n"
)


def fixed_closure(run, config):
    return Closure({}, {}, frozenset({"torch"}))


@pytest.fixture
def fixed_sources(monkeypatch):
    monkeypatch.setattr(runner_module, "closure_of_run", fixed_closure)


def finished_cells(output):
    return sorted(path.name for path in (output / "cells").glob("*.json"))


def test_every_cell_is_run_once_and_a_second_run_reuses_them_all(tmp_path, synthetic):
    lines = []
    first = run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=lines.append)
    assert len(first.records) == 12
    assert first.reused == 0
    again = run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=lines.append)
    assert again.reused == 12
    assert again.values("switch") == first.values("switch")
    assert "reusing 12 finished, running 0" in lines[-1]
    assert (
        first.values("switch")["sgd"][3]
        == synthetic.draw({"mean": 2.0, "overrides": {}}, 3)["metrics"]
    )


def test_fresh_computes_finished_cells_again(tmp_path, synthetic):
    run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str)
    fresh = run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, fresh=True, echo=str)
    assert fresh.reused == 0
    assert len(finished_cells(tmp_path)) == 12


def test_a_changed_source_hash_reuses_nothing(tmp_path, synthetic, monkeypatch):
    run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str)
    monkeypatch.setattr(runner_module, "closure_of_run", fixed_closure)
    assert run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str).reused == 0
    assert len(finished_cells(tmp_path)) == 24


def test_a_corrupt_cell_is_the_only_one_computed_again(tmp_path, synthetic):
    run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str)
    (tmp_path / "cells" / finished_cells(tmp_path)[0]).write_text("{")
    with pytest.warns(UserWarning, match=finished_cells(tmp_path)[0]):
        assert run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str).reused == 11
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str).reused == 12


def test_a_cell_that_raises_is_reported_and_the_others_are_kept(tmp_path, synthetic):
    results = run_paper(
        synthetic.paper(synthetic.fail_for_seed_one), "smoke", tmp_path, jobs=1, echo=str
    )
    (failure,) = results.failures
    assert (failure.arm, failure.seed) == ("sam", 1)
    assert failure.error.startswith("RuntimeError: the loss is not finite (")
    assert "\n" not in failure.error
    (trace,) = (tmp_path / "cells").glob("*.error.txt")
    assert "fail_for_seed_one" in trace.read_text()
    assert len(results.records) == 11
    better = results.judge()[0].judgement
    assert (better.n, better.dropped) == (3, 1)


def test_the_rules_hash_is_stored_with_each_cell_and_a_later_rule_is_reported(tmp_path, synthetic):
    before = synthetic.paper()
    results = run_paper(before, "smoke", tmp_path, jobs=1, echo=str)
    stored = json.loads((tmp_path / "cells" / finished_cells(tmp_path)[0]).read_text())
    assert stored["rules"] == {claim.name: claim.rule_sha256 for claim in before.claims}
    assert not any(one.rule_changed for one in results.judge())
    later = replace(before.claims[0], rule=Superiority("loss", "tail", "sgd", "lower"))
    after = replace(before, claims=(later, *before.claims[1:]))
    results = run_paper(after, "smoke", tmp_path, jobs=1, echo=str)
    assert results.reused == 12
    assert [one.rule_changed for one in results.judge()] == [True, False, False]
    assert [one.rule_changed for one in paper_evidence(results).claims] == [True, False, False]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_changed_rule_is_reported_even_if_every_cell_is_run_again(
    tmp_path, synthetic, monkeypatch, fresh
):
    paper = synthetic.paper()
    run_paper(paper, "smoke", tmp_path, jobs=1, echo=str)
    monkeypatch.setattr(runner_module, "closure_of_run", fixed_closure)
    later = replace(paper.claims[0], rule=Superiority("loss", "tail", "sgd", "lower"))
    unseen = replace(paper.claims[1], name="written after the run")
    after = replace(paper, claims=(later, unseen, paper.claims[2]))
    for _ in range(2):  # the second run finds cells of the new rule, too
        results = run_paper(after, "smoke", tmp_path, jobs=1, fresh=fresh, echo=str)
        assert [one.rule_changed for one in results.judge()] == [True, True, False]
    elsewhere = run_paper(after, "smoke", tmp_path / "new", jobs=1, echo=str)
    assert not any(one.rule_changed for one in elsewhere.judge())


def test_a_claim_on_an_arm_without_results_counts_as_written_before_the_run(tmp_path, synthetic):
    whole = synthetic.paper()
    (experiment,) = whole.experiments
    without = {arm: config for arm, config in experiment.arms.items() if arm != "tail"}
    before = replace(
        whole, experiments=(replace(experiment, arms=without),), claims=whole.claims[:1]
    )
    run_paper(before, "smoke", tmp_path, jobs=1, echo=str)
    seen = run_paper(whole, "smoke", tmp_path, jobs=1, fresh=True, echo=str)
    assert [one.rule_changed for one in seen.judge()] == [False, False, False]


def test_verdicts_use_holms_method_and_the_regime(tmp_path, synthetic):
    better, recovers, same = run_paper(
        synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str
    ).judge()
    alone = better.claim.rule.judge(
        run_paper(synthetic.paper(), "smoke", tmp_path, jobs=1, echo=str).values("switch")
    )
    assert better.judgement.p_for >= alone.p_for
    assert better.judgement.verdict == "supported"
    assert recovers.judgement.verdict == "supported"
    assert same.judgement.verdict == "refuted at this scale"
    assert better.judgement.regime == "Gaussian numbers"


@pytest.mark.usefixtures("fixed_sources")
def test_two_processes_give_the_same_numbers_as_one(tmp_path, synthetic, start_python):
    alone = run_paper(synthetic.paper(), "smoke", tmp_path / "one", jobs=1, echo=str)
    code = (
        "import sys, synthetic_claims\n"
        "from lightning_plugins.claims.runner import run_paper\n"
        f"run_paper(synthetic_claims.paper(), 'smoke', {str(tmp_path / 'two')!r}, jobs=2)\n"
    )
    process = start_python(FIXED_SOURCES + code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "[12/12]" in output
    assert finished_cells(tmp_path / "two") == finished_cells(tmp_path / "one")
    both = run_paper(synthetic.paper(), "smoke", tmp_path / "two", jobs=1, echo=str)
    assert both.reused == 12
    assert both.values("switch") == alone.values("switch")


@pytest.mark.usefixtures("fixed_sources")
def test_a_killed_run_resumes_with_its_finished_cells(tmp_path, synthetic, start_python):
    code = (
        "import synthetic_claims\n"
        "from lightning_plugins.claims.runner import run_paper\n"
        f"run_paper(synthetic_claims.paper(seconds=0.15), 'smoke', {str(tmp_path)!r}, jobs=1)\n"
    )
    process = start_python(FIXED_SOURCES + code)
    deadline = time.monotonic() + 60
    while len(finished_cells(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = len(finished_cells(tmp_path))
    assert 5 <= finished < 12
    results = run_paper(synthetic.paper(seconds=0.15), "smoke", tmp_path, jobs=1, echo=str)
    assert results.reused == finished
    assert len(results.records) == 12


def test_a_killed_worker_is_reported_and_the_finished_cells_are_kept(tmp_path, start_python):
    code = (
        "import synthetic_claims\n"
        "from lightning_plugins.claims.runner import run_paper\n"
        "paper = synthetic_claims.paper(synthetic_claims.die_for_last_seed)\n"
        f"results = run_paper(paper, 'smoke', {str(tmp_path)!r}, jobs=2)\n"
        "assert results.failures and results.records\n"
        "assert len(results.failures) + len(results.records) == 12\n"
        "assert 'killed' in results.failures[0].error\n"
    )
    process = start_python(code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_torch_threads_are_one_in_a_cell_and_restored_after(tmp_path, synthetic):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = run_paper(
            synthetic.paper(synthetic.count_threads), "smoke", tmp_path, jobs=1, echo=str
        )
        assert {record.metrics["loss"] for record in results.records} == {1.0}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_run_cannot_change_its_stored_configuration(tmp_path, synthetic):
    run_paper(synthetic.paper(synthetic.spoil_config), "smoke", tmp_path, jobs=1, echo=str)
    again = run_paper(synthetic.paper(synthetic.spoil_config), "smoke", tmp_path, jobs=1, echo=str)
    assert again.reused == 12


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"backend": "lokey"}, "did you mean 'loky'"),
        ({"jobs": 0}, "jobs must be at least 1"),
    ],
)
def test_invalid_options_are_refused(tmp_path, synthetic, options, named):
    with pytest.raises(ValueError, match=named):
        run_paper(synthetic.paper(), "smoke", tmp_path, **options)
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        run_paper(synthetic.paper(), "smok", tmp_path)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_the_error_for_a_missing_backend_contains_its_install_command(
    tmp_path, synthetic, backend, monkeypatch
):
    import sys

    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ImportError, match=f"--backend {backend} requires: pip install"):
        run_paper(synthetic.paper(), "smoke", tmp_path, backend=backend, echo=str)
