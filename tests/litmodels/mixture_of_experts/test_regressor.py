"""MoERegressor: objective, logged values, refusals, and constructed models."""

import pickle
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.functional import mse_loss

from lightning_plugins.cli import PluginCLI
from lightning_plugins.datamodules import ManifoldDataModule
from lightning_plugins.litmodels import MoERegressor
from lightning_plugins.nn.moe import (
    Bumps,
    SineCosine,
    build_target,
    load_balancing_loss,
    router_z_loss,
)
from lightning_plugins.recipes import list_recipes, load_recipe

SMALL = {"in_features": 4, "num_experts": 3, "hidden_features": 6}


def quiet_trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    defaults = {"accelerator": "cpu", "enable_checkpointing": False, "max_steps": 4}
    return Trainer(**{**defaults, **quiet, **options})


def model(**changes):
    torch.manual_seed(0)
    return MoERegressor(**(SMALL | changes))


def data(**changes):
    settings = {"ambient_dim": 4, "batch_size": 16, "evaluation_samples": 40}
    return ManifoldDataModule(**(settings | {"batches_per_epoch": 4} | changes))


def test_the_objective_is_the_error_plus_the_weighted_auxiliary_losses():
    module = model(
        depth=2,
        encoder_features=2,
        balance_coef=0.1,
        z_coef=0.2,
        reconstruction_coef=0.3,
    )
    inputs, targets = data().draw(30, torch.Generator().manual_seed(0))
    total, terms = module.objective(inputs, targets)
    assert list(terms) == ["loss", "balance", "z", "reconstruction"]
    first, second = module.routings((inputs, targets))
    torch.testing.assert_close(terms["loss"], module.loss(inputs, targets))
    torch.testing.assert_close(terms["loss"], mse_loss(module(inputs), targets))
    torch.testing.assert_close(
        terms["balance"], load_balancing_loss(first) + load_balancing_loss(second)
    )
    torch.testing.assert_close(terms["z"], router_z_loss(first) + router_z_loss(second))
    layers = module.network.layers
    reconstruction = layers[0].reconstruction_error(inputs, first)
    reconstruction += layers[1].reconstruction_error(layers[0](inputs), second)
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    expected = sum(
        factor * terms[name]
        for name, factor in {"loss": 1, "balance": 0.1, "z": 0.2, "reconstruction": 0.3}.items()
    )
    torch.testing.assert_close(total, expected)


def test_every_trainable_parameter_gets_a_gradient():
    module = model(encoder_features=2, reconstruction_coef=0.1, gate="mlp")
    module.objective(*data().draw(200, torch.Generator().manual_seed(0)))[0].backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_model_can_be_sent_to_a_spawned_process():
    module = model(optimizer=partial(torch.optim.Adam, lr=0.1))
    copied = pickle.loads(pickle.dumps(module))  # noqa: S301
    inputs = torch.rand(5, 4)
    assert torch.equal(copied(inputs), module(inputs))


def test_the_documented_keys_are_logged_and_no_others():
    module = model(z_coef=0.1, encoder_features=2, reconstruction_coef=0.1)
    trainer = quiet_trainer()
    trainer.fit(module, datamodule=data())
    logged = set(trainer.callback_metrics)
    logged |= set(trainer.test(module, datamodule=data(), verbose=False)[0])
    train = {f"train/{name}" for name in ("loss", "balance", "z", "reconstruction")}
    errors = {f"{stage}/{name}" for stage in ("val", "test") for name in ("loss", "max_error")}
    assert logged == train | errors


def test_errors_are_computed_over_all_points():
    module, module_data = model(), data(evaluation_samples=2100)
    logged = quiet_trainer().test(module, datamodule=module_data, verbose=False)[0]
    inputs, targets = (torch.cat(x) for x in zip(*module_data.test_dataloader(), strict=True))
    errors = module(inputs) - targets
    assert logged["test/max_error"] == pytest.approx(float(errors.detach().abs().max()))
    assert logged["test/loss"] == pytest.approx(float(errors.square().mean()), rel=1e-5)


def test_a_diverged_model_has_an_infinite_error():
    module = model()
    with torch.no_grad():
        next(module.network.parameters()).fill_(torch.nan)
    logged = quiet_trainer().test(module, datamodule=data(), verbose=False)[0]
    assert logged["test/max_error"] == float("inf")


def test_decoders_without_a_reconstruction_loss_are_not_trained():
    module = model(encoder_features=2)
    module.objective(*data().draw(200, torch.Generator().manual_seed(0)))[0].backward()
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad == (not name.endswith(".decoder")), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_predictions_are_outputs_with_or_without_targets():
    module, module_data = model(), data()
    predicted = torch.cat(quiet_trainer().predict(module, datamodule=module_data))
    inputs = torch.cat([x for x, _ in module_data.test_dataloader()])
    torch.testing.assert_close(predicted, module(inputs))
    torch.testing.assert_close(module.predict_step(inputs, 0), module(inputs))


@pytest.mark.parametrize("gate", ["affine", "linear"])
def test_a_constructed_model_is_accurate_after_a_checkpoint(gate, tmp_path):
    module_data = ManifoldDataModule("cube", 2, 2, target="bumps", pieces=3, evaluation_samples=500)
    module = MoERegressor.constructed(Bumps(3, 2), 32, gate)
    trainer = quiet_trainer()
    tested = trainer.test(module, datamodule=module_data, verbose=False)[0]
    assert tested["test/max_error"] <= 2 * 3 / 8 / 30**2 + 1e-6
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "constructed.ckpt")
    loaded = MoERegressor.load_from_checkpoint(tmp_path / "constructed.ckpt", weights_only=True)
    points = 3 * torch.rand(100, 2)
    torch.testing.assert_close(loaded(points), module(points))


def test_a_constructed_model_can_be_trained_further():
    module_data = data(manifold="cube", intrinsic_dim=2, ambient_dim=2, target="bumps", pieces=3)
    adam = partial(torch.optim.Adam, lr=1e-4)
    module = MoERegressor.constructed(Bumps(3, 2), 8, optimizer=adam, balance_coef=0.0)
    gates = [layer.gate.weight.clone() for layer in module.network.layers]
    before = float(module.loss(*module_data.draw(2000, torch.Generator().manual_seed(0))))
    quiet_trainer(max_steps=100).fit(module, datamodule=module_data)
    after = float(module.loss(*module_data.draw(2000, torch.Generator().manual_seed(0))))
    assert after < before
    for layer, gate in zip(module.network.layers, gates, strict=True):
        assert torch.equal(layer.gate.weight, gate)


def test_a_constructed_circle_has_the_single_layer_of_the_paper():
    module = MoERegressor.constructed(SineCosine(), 64, charts=4)
    assert module.hparams.depth == 1
    assert module.hparams.num_experts == 4
    inputs, targets = ManifoldDataModule(ambient_dim=2).draw(1000)
    assert (module(inputs) - targets).abs().max() < 2e-3


@pytest.mark.parametrize("name", ["smooth", "bump_product", "shells"])
def test_a_target_that_no_construction_covers_is_refused(name):
    target = build_target(name, 2, 3, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=rf"target={type(target).__name__}: constructions cover"):
        MoERegressor.constructed(target, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": "spline"}, "gate='spline'"),
        ({"top_k": 4}, "top_k=4: expected 1 to num_experts=3"),
        ({"gate_weighting": "softmax_topk"}, "gets no gradient"),
        ({"balance_coef": -1.0}, r"balance_coef=-1\.0: expected 0 or more"),
        ({"reconstruction_coef": 0.1}, r"reconstruction_coef=0\.1: .* set encoder_features"),
        ({"encoder_features": 5}, "encoder_features=5"),
        (
            {"encoder_features": 2, "reconstruction_coef": 0.1, "num_experts": 1, "top_k": 1},
            r"reconstruction_coef=0\.1: requires routed experts",
        ),
        ({"arrangement": "dense_moe"}, "depth=1"),
    ],
)
def test_invalid_arguments_are_refused_at_construction(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


def test_a_circle_requires_a_linear_gate():
    with pytest.raises(
        ValueError, match="gate='affine': the arcs of a circle require gate='linear'"
    ):
        MoERegressor.constructed(SineCosine(), 8, "affine")


def test_data_with_another_number_of_features_is_refused_before_training():
    with pytest.raises(
        ValueError, match=r"in_features=4: ManifoldDataModule has in_features=6; set"
    ):
        quiet_trainer().fit(model(), datamodule=data(ambient_dim=6))
    cube = data(manifold="cube", intrinsic_dim=2, target="bumps")
    with pytest.raises(ValueError, match=r"out_features=1: ManifoldDataModule has out_features=2"):
        quiet_trainer().fit(model(), datamodule=cube)


RECIPES = [r.name for r in list_recipes() if r.name.startswith("moe/")]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train(name, tmp_path):
    config = load_recipe(name)
    config["trainer"] |= {
        "max_steps": 4,
        "enable_progress_bar": False,
        "default_root_dir": str(tmp_path),
        "logger": False,
        "enable_checkpointing": False,
    }
    config["trainer"]["callbacks"] = [
        one
        for one in config["trainer"]["callbacks"]
        if not one["class_path"].endswith("ModelCheckpoint")
    ]
    config["data"]["init_args"] |= {"batches_per_epoch": 2, "evaluation_samples": 64}
    classes = {"subclass_mode_model": True, "subclass_mode_data": True}
    cli = PluginCLI(run=False, args=config, save_config_callback=None, **classes)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 4


@pytest.mark.slow
def test_the_circle_recipe_reaches_an_error_below_two_thousandths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_recipe("moe/circle")
    config["trainer"]["enable_progress_bar"] = False
    classes = {"subclass_mode_model": True, "subclass_mode_data": True}
    cli = PluginCLI(run=False, args=config, save_config_callback=None, **classes)
    cli.trainer.fit(cli.model, cli.datamodule)
    (tested,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    assert cli.model.hparams.top_k == 2
    assert tested["test/loss"] <= 2e-3
