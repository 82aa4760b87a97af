"""The claims on induction heads use the runs that their arms name."""

import math

import pytest

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements import induction_heads, recipe_run
from lightning_plugins.claims.measurements.induction_heads import run_markov, run_mixture

PAPER = load_paper("induction-heads")


def config(experiment, arm, max_steps=None):
    chosen = PAPER.experiment(experiment).config(arm, "cpu")
    if max_steps:
        chosen["overrides"]["trainer.max_steps"] = max_steps
    return chosen


@pytest.fixture
def runs(monkeypatch):
    """The configurations that were trained."""
    trained = []
    train = recipe_run.train_recipe

    def counted(config, seed, callbacks=()):
        trained.append((config, seed))
        return train(config, seed, callbacks)

    monkeypatch.setattr(recipe_run, "train_recipe", counted)
    induction_heads._watched_run_of.cache_clear()
    return trained


def test_the_emergence_of_the_flow_is_that_of_the_ode():
    metrics = run_mixture(config("second layer", "its gradient flow"), seed=0)["metrics"]
    assert metrics == {"emergence": pytest.approx(2487, abs=1)}


def test_two_arms_that_read_the_same_run_train_it_once(runs):
    cells = [
        run_mixture(config("second layer", arm, 100), seed=1)
        for arm in ("4-gram", "induction head")
    ]
    assert len(runs) == 1
    assert cells[0]["series"] == cells[1]["series"]
    assert cells[0]["metrics"]["moment"] == pytest.approx(53, abs=10)
    assert math.isnan(cells[1]["metrics"]["moment"])  # not within 100 steps
    run_mixture(config("second layer", "4-gram", 60), seed=2)
    assert len(runs) == 2


@pytest.mark.parametrize(
    ("arm", "changed"),
    [
        ("twice the length", {"data.init_args.length": 80}),
        ("σ = 0.0001", {"model.init_args.sigma_init": 1e-4}),
        ("α* = 0.5", {"data.init_args.alpha": 0.5}),
    ],
)
def test_an_arm_changes_one_setting_of_the_run_and_of_its_predicted_scale(arm, changed):
    reference, chosen = config("second layer", "induction head"), config("second layer", arm)
    ignored = {"trainer.max_steps", "trainer.limit_val_batches"}
    assert {k: v for k, v in chosen["overrides"].items() if k not in ignored} == changed
    ((key, value),) = changed.items()
    assert chosen["setting"] == reference["setting"] | {key.split(".")[-1]: value}


def test_joint_arms_train_all_parameters_with_the_named_optimizer():
    for arm in ("4-gram", "induction head", "4-gram, Adam", "induction head, Adam"):
        overrides = config("joint", arm)["overrides"]
        assert overrides["model.init_args.stage"] == "joint"
        optimizer = overrides.get("model.init_args.optimizer", {"class_path": "torch.optim.SGD"})
        assert optimizer["class_path"].endswith("Adam" if "Adam" in arm else "SGD")


def test_chains_report_the_nearest_step_and_nan_without_a_crossing(runs):
    nearest, crossing = (
        run_markov(config("markov", arm, 60), seed=0)["metrics"]["moment"]
        for arm in ("nearest to the unigram", "nearer to the bigram")
    )
    assert len(runs) == 1
    assert 1 <= nearest <= 60
    assert math.isnan(crossing)
