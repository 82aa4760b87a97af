"""The arms of the claims on mixtures of experts measure what their names say."""

import math
import re

import pytest
import torch

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements.mixture_of_experts import (
    run_construction,
    run_slope,
    run_training,
)
from lightning_plugins.claims.published_runs import published_lines
from lightning_plugins.datamodules import ManifoldDataModule
from lightning_plugins.litmodels import MoERegressor
from lightning_plugins.recipes import load_recipe


def paper():
    return load_paper("mixture-of-experts")


def config(experiment, arm, steps=20):
    found = paper().experiment(experiment).config(arm, "cpu")
    return {**found, "overrides": {"steps": steps}}


def parameters(experiment, arm):
    found = config(experiment, arm)
    data = ManifoldDataModule(**found["data"])
    model = MoERegressor(data.in_features, data.out_features, **found["model"])
    return sum(p.numel() for p in model.parameters()), model.network.num_active_parameters


def test_every_arm_can_be_built_for_its_data():
    for experiment in paper().experiments:
        for arm, found in experiment.arms.items():
            if "model" in found:
                data = ManifoldDataModule(**found["data"], evaluation_samples=8)
                model = MoERegressor(data.in_features, data.out_features, **found["model"])
                inputs, targets = data.draw(8)
                assert model(inputs).shape == targets.shape, (experiment.name, arm)


def test_dense_controls_have_the_size_in_their_names():
    neurons = 10 * 16 + 10 + 10 + 1
    assert parameters("circle", "dense, equal active") == (neurons, neurons)
    assert parameters("circle", "MoE, D=16") == (4 * neurons + 4 * 16, neurons + 4 * 16)
    pairs = [
        ("circle", "dense, equal total", "MoE, D=16"),
        ("experts", "dense, as E=8", "E=8"),
        ("pieces", "dense, as 2-3-MoE, m=128", "2-3-MoE, m=128"),
        ("construction", "dense, equal total", "trained"),
        ("gates", "shells, dense, equal total", "shells, mlp"),
    ]
    for experiment, dense, mixture in pairs:
        ratio = parameters(experiment, dense)[0] / parameters(experiment, mixture)[0]
        assert 0.88 < ratio < 1.05, (dense, ratio)


def test_arms_use_the_same_target_and_points():
    points = {}
    for dim in (8, 128):
        data = ManifoldDataModule(**config("dimension", f"circle, D={dim}")["data"], seed=3)
        points[dim] = data.draw(50, torch.Generator().manual_seed(0))[1]
    assert points[8].equal(points[128])


def test_a_cell_depends_only_on_its_seed():
    cells = [run_training(config("gates", "shells, mlp"), seed)["metrics"] for seed in (1, 1, 2)]
    for cell in cells:
        del cell["seconds"]
    assert cells[0] == cells[1] != cells[2]
    assert 25 <= cells[0]["routing_accuracy"] <= 100


def test_training_lowers_the_error():
    errors = [
        run_training(config("circle", "dense, equal total", steps), 0)["metrics"]["log10_mse"]
        for steps in (1, 100)
    ]
    assert errors[1] < errors[0] - 0.3


def test_the_slope_is_computed_from_the_errors():
    cell = run_slope(config("rate", "d=1"), 0)
    low, high = cell["series"]["log10_mse"]
    assert cell["metrics"]["slope"] == pytest.approx((high - low) / math.log10(64 / 8))


def test_the_construction_uses_every_path_and_the_trained_network_does_not():
    constructed = run_construction(config("construction", "constructed"), 0)["metrics"]
    assert constructed["path_share"] == 100
    assert constructed["slope"] < -0.5
    assert constructed["log10_sup_error"] < math.log10(2 * 4 / 8 / 24**2)
    trained = run_construction(config("construction", "trained", steps=2), 0)["metrics"]
    assert 0 < trained["path_share"] < 100
    assert trained["log10_sup_error"] > constructed["log10_sup_error"]


def test_the_commands_of_the_paper_scale_use_existing_recipes_and_arguments():
    commands = [c for c in published_lines(paper()) if not c.startswith("#")]
    assert len(commands) == 5 * (4 + 8)
    for name in {re.search(r"--config (\S+)", command)[1] for command in commands}:
        assert load_recipe(name)["model"]["class_path"].endswith("MoERegressor")
    assert "--model.init_args.in_features 128" in " ".join(commands)


@pytest.mark.slow
def test_the_smoke_scale_runs():
    smoke = paper().at("smoke")
    for experiment in smoke.experiments:
        for arm in experiment.arms:
            cell = experiment.run(experiment.config(arm, "smoke"), 0)
            assert all(math.isfinite(value) for value in cell["metrics"].values())
