import sys
from dataclasses import replace
from types import ModuleType

import pytest

from lightning_plugins.claims import command, papers
from lightning_plugins.reports.report_data import Table
from lightning_plugins.reports.terminal import aligned


@pytest.fixture
def registered(synthetic, monkeypatch):
    monkeypatch.setattr(papers, "PAPERS", {"synthetic": "synthetic_claims"})
    monkeypatch.setattr(command, "PAPERS", papers.PAPERS)
    return synthetic


def test_the_command_prints_the_table_the_verdicts_and_the_path_of_the_report(
    registered, tmp_path, capsys
):
    assert command.main(["synthetic", "--jobs", "1", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "switch\narm   loss" in output
    assert "2.0" in output
    assert "SUPPORTED: better" in output
    assert "REFUTED AT THIS SCALE: same" in output
    assert str(tmp_path / "report.html") in output
    assert "lightning-plugins reproduce synthetic" in (tmp_path / "report.md").read_text()
    assert not [line for line in output.splitlines() if line != line.rstrip()]


def test_the_output_ends_with_the_path_of_the_report_and_the_next_steps(
    registered, tmp_path, monkeypatch, capsys
):
    failing = replace(registered.paper(registered.fail_for_seed_one), next_steps=("try this",))
    monkeypatch.setattr(registered, "paper", lambda: failing)
    command.main(["--jobs", "1", "--output", str(tmp_path)])
    *_, failed, report, following = capsys.readouterr().out.splitlines()
    assert failed.startswith("1 cell failed")
    assert report.endswith(str(tmp_path / "report.html"))
    assert following == "Next: try this"


def test_a_wide_table_is_split_into_parts_of_at_most_a_hundred_characters():
    names = [f"metric {place}" for place in range(9)]
    rows = tuple((f"arm {one}", *(f"{place}.123 ± 0.123" for place in range(9))) for one in "ab")
    lines = aligned(Table(("arm", *names), rows))
    assert max(map(len, lines)) <= 100
    assert [word for line in lines if line.startswith("arm  ") for word in line.split()[1::2]]
    text = "\n".join(lines)
    assert all(text.count(name) == 1 for name in names)
    assert text.count("arm a") == text.count("8.123") == 2


def test_after_a_failed_cell_the_exit_code_is_one_and_the_report_is_written(
    registered, tmp_path, monkeypatch, capsys
):
    failing = registered.paper(registered.fail_for_seed_one)
    monkeypatch.setattr(registered, "paper", lambda: failing)
    assert command.main(["--jobs", "1", "--output", str(tmp_path)]) == 1
    assert "switch, sam, seed 1: RuntimeError: the loss is not finite" in capsys.readouterr().out
    assert "the loss is not finite" in (tmp_path / "report.html").read_text()


def test_other_seeds_are_run_and_kept_as_rows_that_another_folder_reuses(
    registered, tmp_path, capsys
):
    options = ["synthetic", "--jobs", "1", "--rows", str(tmp_path / "rows")]
    assert command.main([*options, "--seeds", "4..6", "--output", str(tmp_path / "one")]) == 0
    output = capsys.readouterr().out
    assert "9 cells, reusing 0" in output
    assert "synthetic.csv: 9 cells added" in output
    again = [*options, "--seeds", "5,6,9", "--looks", "3,6", "--output", str(tmp_path / "two")]
    assert command.main(again) == 0
    output = capsys.readouterr().out
    assert "9 cells, reusing 6 finished, running 3" in output
    report = (tmp_path / "two" / "report.md").read_text()
    assert "--seeds 5,6,9 --looks 3,6" in report
    assert "look 1 of 2 at a level of 0.0056" in report
    assert command.main([*options, "--plan", "--output", str(tmp_path / "none")]) == 0
    assert "# synthetic, scale smoke\nbetter: " in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    for wrong in ("4..", "6..4", "a", "1,b", "1..2,3"):
        with pytest.raises(SystemExit):
            command.main([*options, "--seeds", wrong])
    assert "expected A..B" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([*options, "--looks", "6,3"])


def test_paper_scale_prints_the_commands_and_runs_nothing(registered, tmp_path, capsys):
    assert command.main(["--scale", "paper", "--output", str(tmp_path / "none")]) == 0
    output = capsys.readouterr().out
    assert (
        "lightning-plugins fit --config image/digits+late_sam "
        "--trainer.max_epochs 200 --tags '[\"a b\"]' --seed_everything 1"
    ) in output
    assert len([line for line in output.splitlines() if line.startswith("lightning-")]) == 6
    assert not (tmp_path / "none").exists()


def test_paper_scale_lists_the_runs_that_cannot_be_built(registered, capsys):
    def problem_of(options):
        return "no such recipe" if "image/digits+late_sam" in options else None

    assert command.main(["--scale", "paper"], problem_of=problem_of) == 1
    output = capsys.readouterr().out
    assert "# synthetic: 2 of 3 runs can be built" in output
    assert output.count("cannot be built: no such recipe") == 1
    assert command.main(["--scale", "paper"], problem_of=lambda options: None) == 0


def test_for_a_paper_without_published_settings_the_cpu_scale_is_suggested(
    registered, monkeypatch, capsys
):
    whole = registered.paper()
    scales = {"cpu": whole.experiments[0].scale("smoke")}
    small = replace(whole, experiments=(replace(whole.experiments[0], scales=scales),))
    monkeypatch.setattr(registered, "paper", lambda: small)
    assert command.main(["--scale", "paper"]) == 0
    assert "lightning-plugins reproduce synthetic --scale cpu" in capsys.readouterr().out


def test_list_names_papers_claims_and_scales(registered, capsys):
    assert command.main(["--list"]) == 0
    output = capsys.readouterr().out
    assert "synthetic  A synthetic paper" in output
    assert "scales: smoke, paper" in output
    assert "- recovers: The tail has it." in output


def test_user_errors_are_raised_as_value_errors_with_a_suggestion(registered, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'synthetic'"):
        command.main(["synthetik"])
    with pytest.raises(ValueError, match="has no scale 'cpu'; it has smoke, paper"):
        command.main(["synthetic", "--scale", "cpu", "--output", str(tmp_path)])


@pytest.mark.parametrize("extra", ["scipy", "joblib", "matplotlib"])
def test_the_error_for_a_missing_package_contains_its_install_command(
    registered, tmp_path, monkeypatch, extra
):
    for name in [name for name in sys.modules if name.split(".")[0] == extra]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, extra, None)
    jobs = "2" if extra == "joblib" else "1"
    with pytest.raises(ImportError, match=rf"{extra}.*: pip install"):
        command.main(["--jobs", jobs, "--output", str(tmp_path)])


def test_a_module_whose_paper_function_returns_no_paper_is_refused(monkeypatch):
    empty = ModuleType("empty_paper")
    empty.paper = lambda: None
    monkeypatch.setitem(sys.modules, "empty_paper", empty)
    monkeypatch.setitem(papers.PAPERS, "empty", "empty_paper")
    with pytest.raises(ValueError, match="must return a Paper"):
        papers.load_paper("empty")


def test_help_imports_neither_torch_nor_scipy(start_python):
    code = (
        "import sys\n"
        "from lightning_plugins.claims.command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules\n"
    )
    process = start_python(code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
