"""Every recipe whose data and weights are embedded: no command evaluates untrained weights."""

import os
import subprocess
import sys

import pytest

from lightning_plugins.recipes import list_recipes, load_recipe

# In the names of recipes whose data is downloaded.
_DOWNLOADED = ("cifar", "imagenet", "minipile", "openwebtext", "_c4", "roberta", "levir", "ml1m")
RECIPES = [
    recipe.name
    for recipe in list_recipes()
    if not recipe.is_overlay and not any(part in recipe.name for part in _DOWNLOADED)
]
FAST = "late_sam/digits"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
FEW = [f"--trainer.limit_{part}_batches=1" for part in ("val", "test", "predict")]
COMPARE = ["--trainer.callbacks+=my_pkg.ComparesWeights"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "recipe",
    [name if name == FAST else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES],
)
def test_weights_are_evaluated_only_after_training(command, users_folder, recipe):
    run = command
    if (
        "devices" in load_recipe(recipe)["trainer"]
        and load_recipe(recipe)["trainer"]["devices"] > 1
    ):
        run = in_a_process_of_its_own
    for subcommand in ("test", "predict"):
        answer = run(subcommand, "--config", recipe, *QUIET, *FEW)
        if recipe == "influence_paths/tiny":  # its planners train their networks in `predict`
            return
        assert answer.code == 2
        assert "untrained weights: add --run last|FOLDER" in answer.err
    steps = ["--trainer.max_steps=2", "--trainer.num_sanity_val_steps=0"]
    answer = run("fit", "--config", recipe, *QUIET, *FEW, *steps)
    assert answer.code == 0, answer.err[-2000:]
    assert "next: lightning-plugins" in answer.out
    for subcommand in ("test", "predict"):
        (users_folder / "equal").unlink(missing_ok=True)
        answer = run(subcommand, "--run", "last", *COMPARE)
        assert answer.code in (0, 2), answer.err[-2000:]
        assert (answer.code == 0) == (users_folder / "equal").exists(), answer.err[-2000:]
    if recipe == FAST:
        assert run("test", "--run", "last").code == 0


def in_a_process_of_its_own(*arguments):
    answer = subprocess.run(
        [sys.executable, "-m", "lightning_plugins", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    answer.code, answer.out, answer.err = answer.returncode, answer.stdout, answer.stderr
    return answer
