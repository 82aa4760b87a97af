"""The papers' own runs are command lines of recipes that exist and can be built."""

import pytest

from lightning_plugins import cli
from lightning_plugins.__main__ import _problem_of, main
from lightning_plugins.claims.measurements.recipe_run import quiet
from lightning_plugins.claims.papers import PAPERS, load_paper
from lightning_plugins.claims.published_runs import has_published_runs, published_runs
from lightning_plugins.recipes import load_recipe

# We know only the abstract on the laser; the cpu scale of induction heads is the paper's setting.
WITHOUT = {"fiber-laser", "induction-heads"}
RUNS = [
    one
    for name in sorted(PAPERS)
    if has_published_runs(load_paper(name))
    for one in published_runs(load_paper(name))
]


def test_all_papers_except_two_have_a_paper_scale():
    assert {one.name.split()[0] for one in RUNS} == set(PAPERS) - WITHOUT


@pytest.mark.parametrize("one", RUNS, ids=lambda one: one.name)
def test_every_run_names_a_recipe_and_a_command(one):
    flag, recipe, *options = one.options
    assert flag == "--config"
    assert load_recipe(recipe)
    assert one.command in ("fit", "predict")
    assert all(option.startswith("--") for option in options[::2])


def test_the_run_of_influence_paths_is_a_predict_command():
    (run,) = published_runs(load_paper("influence-paths"))
    assert run.lines()[1].startswith("lightning-plugins predict --config influence_paths/ml1m")


def test_the_command_builds_what_it_prints(capsys):
    assert main(["reproduce", "late-sam", "--scale", "paper"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "# late-sam: 3 of 3 runs can be built"


def test_the_error_of_a_run_that_cannot_be_built_is_one_line():
    problem = _problem_of(["--config", "image/digits", "--trainer.max_epochs", "many"])
    assert "max_epochs" in problem
    assert "\n" not in problem


@pytest.mark.slow
@pytest.mark.parametrize("one", RUNS, ids=lambda one: one.name)
def test_every_run_can_be_built(one):
    with quiet():
        cli.instantiate(list(one.options))
