"""Recommenders that are trained on first use and then cached."""

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_plugins.litmodels import SequentialRecommender
from lightning_plugins.litmodels.recommendation import model_cache
from lightning_plugins.litmodels.recommendation.influence_paths import InfluencePathPlanner
from lightning_plugins.litmodels.recommendation.model_cache import fitted_checkpoint
from lightning_plugins.litmodels.recommendation.planners import Popular
from lightning_plugins.recipes import load_recipe


@pytest.fixture(autouse=True)
def one_epoch(monkeypatch):
    monkeypatch.setattr(model_cache, "_EPOCHS", 1)


@pytest.fixture
def no_training(monkeypatch):
    """A function after which any training fails the test."""

    def refuse(*_, **__):
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr(Trainer, "fit", refuse)


def test_a_checkpoint_is_trained_once_and_loads(walking_data, tmp_path, no_training):
    data = walking_data()
    data.setup()
    path = fitted_checkpoint(data, "gru4rec", seed=3, folder=tmp_path)
    no_training()
    assert fitted_checkpoint(data, "gru4rec", seed=3, folder=tmp_path) == path
    loaded = SequentialRecommender.load_from_checkpoint(path, weights_only=True)
    assert (loaded.hparams["network"], loaded.hparams["num_items"]) == ("gru4rec", 24)
    assert [file for file in tmp_path.iterdir() if file.suffix != ".lock"] == [path]


def test_training_calls_no_collective_while_other_processes_wait(
    walking_data, tmp_path, monkeypatch
):
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    asked = []
    try:
        for name in ("all_gather", "all_reduce", "barrier", "broadcast"):
            monkeypatch.setattr(torch.distributed, name, lambda *_, **__: asked.append(1))
        data = walking_data()
        data.setup()
        fitted_checkpoint(data, "sasrec", seed=3, folder=tmp_path / "networks")
    finally:
        monkeypatch.undo()
        torch.distributed.destroy_process_group()
    assert not asked


@pytest.mark.parametrize(
    ("network", "recipe"),
    [("sasrec", "tiny"), ("gru4rec", "tiny_gru4rec"), ("irn", "tiny_irn")],
)
def test_settings_equal_the_recipe(network, recipe, walking_data, tmp_path, monkeypatch):
    seen = {}

    def note(trainer, model, datamodule):
        seen.update(model.hparams, batch_size=datamodule.batch_size)
        model.configure_model()
        seen["lr"] = model.configure_optimizers().param_groups[0]["lr"]
        seen["epochs"] = trainer.max_epochs
        raise StopIteration

    monkeypatch.undo()
    monkeypatch.setattr(Trainer, "fit", note)
    data = walking_data()
    data.setup()
    with pytest.raises(StopIteration):
        fitted_checkpoint(data, network, seed=1, folder=tmp_path)
    found = load_recipe(f"recommendation/{recipe}")
    model, trainer = found["model"]["init_args"], found["trainer"]
    stop = next(one for one in trainer["callbacks"] if "EarlyStopping" in one["class_path"])
    assert model["optimizer"]["class_path"] == "torch.optim.AdamW"
    # The monitored value exists after a validation, which a short run may not reach.
    checked = {"monitor": "val/ndcg@10", "mode": "max", "patience": 5}
    assert stop["init_args"] == {**checked, "check_on_train_epoch_end": False}
    expected = {
        **{name: model[name] for name in ("network", "dim", "layers", "dropout")},
        "lr": model["optimizer"]["init_args"]["lr"],
        "batch_size": found["data"]["init_args"]["batch_size"],
        "epochs": trainer["max_epochs"],
    }
    if network != "gru4rec":
        expected["heads"] = model["heads"]
    assert {name: seen[name] for name in expected} == expected


def test_another_seed_or_other_data_leads_to_another_checkpoint(
    walking_data, tmp_path, no_training
):
    data, fewer = walking_data(), walking_data()
    data.setup()
    fewer.setup()
    fewer.parts.train[0] = fewer.parts.train[0][:-1]
    no_training()
    for given, seed in ((data, 1), (data, 2), (fewer, 1)):
        with pytest.raises(AssertionError, match="trained again"):
            fitted_checkpoint(given, "sasrec", seed, folder=tmp_path)
    assert len(list(tmp_path.glob("*.lock"))) == 3  # one for each name
    assert not list(tmp_path.glob("*.ckpt"))


def test_training_restores_random_state_and_does_not_change_the_data(walking_data, tmp_path):
    data = walking_data()
    data.setup()
    before = torch.get_rng_state()
    fitted_checkpoint(data, "gru4rec", seed=7, folder=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert data.trainer is None
    assert data.seed == 0


def test_planning_without_checkpoints_trains_three_networks_once(
    walking_data, quiet_trainer, tmp_path, monkeypatch, no_training
):
    monkeypatch.setenv("LIGHTNING_PLUGINS_ASSETS", str(tmp_path / "assets"))

    def paths():
        module = InfluencePathPlanner(planners={"popular": Popular()}, path_length=2)
        return quiet_trainer().predict(module, datamodule=walking_data())

    first = paths()
    names = sorted(path.name[:9] for path in (tmp_path / "recommenders").glob("*.ckpt"))
    assert names == ["gru4rec-3", "sasrec-1-", "sasrec-2-"]
    no_training()
    assert paths() == first
