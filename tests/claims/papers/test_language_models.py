"""The arms of the claims on GradPower and Blockwise LR, and the choice of learning rates."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.cli import LightningCLI

from lightning_plugins.claims.measurements import recipe_run, tuned_run
from lightning_plugins.claims.measurements.tuned_run import run_speedup, run_tuned
from lightning_plugins.claims.papers import load_paper

PAPERS = ("grad-power", "blockwise-lr")
LR = "model.init_args.optimizer.init_args.lr"


def trained(val_loss, test_loss, step=100):
    return SimpleNamespace(
        fit_metrics={"val/loss": val_loss},
        test_metrics={"test/loss": test_loss, "test/bits_per_byte": test_loss / math.log(2)},
        fit_seconds=1.0,
        trainer=SimpleNamespace(global_step=step),
    )


@pytest.fixture
def landscape(monkeypatch):
    """Replaces training with a parabola in log2 of the rate; returns the list of tried rates."""
    asked = []

    def use(optimum):
        def train(config, seed, callbacks=()):
            rate = config["overrides"][LR]
            asked.append((rate, seed))
            distance = math.log2(rate / optimum)
            return trained(2 + distance**2, 3 + distance)

        monkeypatch.setattr(recipe_run, "train_recipe", train)
        return asked

    return use


@pytest.fixture(autouse=True)
def untuned():
    tuned_run._tuning_losses.cache_clear()


def tune(rates, seed=0):
    config = {"recipe": "r", "overrides": {}, "learning_rates": rates, "tuning_seed": 1000}
    return run_tuned(config, seed)


def test_the_rate_is_chosen_on_the_validation_set_and_scored_on_the_test_set(landscape):
    asked = landscape(optimum=2.0)
    cell = tune([1.0, 2.0, 4.0])
    assert asked == [(1.0, 1000), (2.0, 1000), (4.0, 1000), (2.0, 0)]
    tune([1.0, 2.0, 4.0], seed=1)  # tuned once per process, on a seed that does not judge
    assert asked[4:] == [(2.0, 1)]
    # The test loss is lowest at rate 1, which validation does not choose.
    assert cell["metrics"]["learning_rate"] == 2.0
    assert cell["metrics"]["test_loss"] == 3.0
    assert cell["metrics"]["on_grid_edge"] == 0


def test_the_grid_is_extended_until_the_best_rate_is_inside(landscape):
    asked = landscape(optimum=16.0)
    cell = tune([1.0, 2.0, 4.0])
    assert [rate for rate, _ in asked] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 16.0]
    assert cell["metrics"]["learning_rate"] == 16.0
    assert (cell["metrics"]["trials"], cell["metrics"]["on_grid_edge"]) == (6, 0)


def test_the_grid_is_extended_downwards_and_a_best_rate_at_its_edge_is_reported(landscape):
    landscape(optimum=2.0**-6)
    cell = tune([1.0, 2.0])
    assert cell["metrics"]["learning_rate"] == 2.0**-3
    assert cell["metrics"]["on_grid_edge"] == 1


def test_a_single_rate_counts_as_the_edge_of_the_grid(landscape):
    landscape(optimum=1.0)
    assert tune([1.0])["metrics"]["on_grid_edge"] == 1


def test_a_diverged_rate_is_never_chosen(landscape, monkeypatch):
    def train(config, seed, callbacks=()):
        rate = config["overrides"][LR]
        return trained(math.nan if rate == 4.0 else rate, rate)

    monkeypatch.setattr(recipe_run, "train_recipe", train)
    cell = tune([2.0, 4.0, 8.0])
    assert cell["metrics"]["learning_rate"] < 4.0


@pytest.mark.parametrize(
    ("curve", "speedup"), [([3.0, 2.5, 2.0, 1.9], 1.5), ([3.0, 2.9, 2.8, 2.7], 2.0)]
)
def test_the_speed_up_is_where_the_baseline_reaches_the_loss(monkeypatch, curve, speedup):
    def train(config, seed, callbacks=()):
        for watch in callbacks:  # the baseline: twice the steps, validated four times
            assert config["overrides"]["trainer.max_steps"] == 200
            assert config["overrides"]["name"] == "baseline"
            watch.steps, watch.values = [50, 100, 150, 200], curve
        return trained(2.2, 2.3, step=100)

    monkeypatch.setattr(recipe_run, "train_recipe", train)
    config = {"recipe": "r", "overrides": {"name": "arm"}, "baseline": {"name": "baseline"}}
    assert run_speedup(config, 0)["metrics"]["speedup"] == speedup


@pytest.mark.parametrize("name", PAPERS)
def test_every_arm_can_be_instantiated_with_the_named_size(name):
    for experiment in load_paper(name).at("cpu").experiments:
        for arm in experiment.arms:
            config = experiment.config(arm, "cpu")
            config["overrides"][LR] = 0.125
            resolved = recipe_run._resolved(config, 0)
            assert resolved["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.125
            with torch.device("meta"):
                cli = LightningCLI(
                    run=False,
                    args=resolved,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    save_config_callback=None,
                )
                cli.model.configure_model()
            label = arm.partition(", ")[2].removesuffix(" WSD").removesuffix("M")
            if label.startswith("0."):
                millions = sum(p.numel() for p in cli.model.parameters()) / 1e6
                assert round(millions, 2) == float(label)


@pytest.mark.parametrize("name", PAPERS)
def test_all_arms_end_at_the_same_learning_rate_and_use_the_same_batches(name):
    experiment = load_paper(name).experiment("terminal loss")
    seen = set()
    for arm in experiment.arms:
        overrides = experiment.config(arm, "cpu")["overrides"]
        schedule = overrides["model.init_args.lr_scheduler"]["init_args"]
        seen.add((schedule["floor"], *(overrides[k] for k in overrides if k.startswith("data."))))
        assert len(experiment.config(arm, "cpu")["learning_rates"]) == 5
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_the_smoke_scale_runs(name):
    paper = load_paper(name).at("smoke")
    experiment = paper.experiment("terminal loss")
    arm = next(iter(experiment.arms))
    cell = experiment.run(experiment.config(arm, "smoke"), 0)
    assert cell["metrics"]["test_loss"] < math.log(256)
