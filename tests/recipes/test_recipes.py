"""Every packaged recipe parses, instantiates and trains, here and in an unmodified LightningCLI."""

import re
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from marker_corpus import write_marker_corpus

from lightning_plugins.callbacks import LateSAM
from lightning_plugins.cli import PluginCLI
from lightning_plugins.recipes import list_recipes, load_recipe
from lightning_plugins.recipes.command import main as recipes_command
from lightning_plugins.recipes.command import with_sources

BASES = [recipe.name for recipe in list_recipes() if not recipe.is_overlay]
OVERLAYS = [recipe.name for recipe in list_recipes() if recipe.is_overlay]
# Recipes with several processes would start this test's command again for each process, and
# planners of influence paths are not trained.
RUNS_HERE = [
    name
    for name in BASES
    if ("digits" in name or "tiny" in name)
    and load_recipe(name)["trainer"].get("devices") == 1
    and not name.startswith("influence_paths/")
]
BASE_OF_OVERLAY = {
    "+blockwise_lr": "language_model/tiny",
    "+cifar100": "image/cifar10_resnet20",
    "+grad_power": "language_model/tiny",
    "+wsd": "language_model/tiny",
}
CLASSES = {"subclass_mode_model": True, "subclass_mode_data": True, "save_config_callback": None}


def instantiated(cls, name):
    # On the meta device, so that models of the papers' sizes use no memory.
    with torch.device("meta"):
        return cls(run=False, args=load_recipe(name), **CLASSES)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("cls", [PluginCLI, LightningCLI])
def test_every_recipe_instantiates(name, cls):
    trainer = instantiated(cls, name).trainer
    assert isinstance(trainer.logger, CSVLogger)
    assert any(isinstance(c, ModelCheckpoint) and c.save_last for c in trainer.callbacks)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_changes_a_recipe_and_the_result_instantiates(overlay):
    base = BASE_OF_OVERLAY.get(overlay, "image/digits")
    instantiated(PluginCLI, base + overlay)
    assert load_recipe(base + overlay) != load_recipe(base)


@pytest.mark.parametrize("name", RUNS_HERE)
def test_small_recipes_train(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_recipe(name)
    # An epoch has five steps, so that a validation takes place.
    config["trainer"] |= {"max_steps": 5, "limit_train_batches": 5, "val_check_interval": 1.0}
    config["trainer"] |= {"log_every_n_steps": 1, "enable_progress_bar": False}
    if config["data"]["class_path"].endswith(".TokenDataModule"):
        config["data"]["init_args"]["data_dir"] = str(tmp_path / "tokens")
    if config["data"]["class_path"].endswith(".ChangeCaptionDataModule"):
        # Without the pre-training of a minute, which has its own test, and with few tiles.
        config["model"]["init_args"]["pretrained"] = None
        sizes = {"num_train": 40, "num_val": 2, "num_test": 1, "batch_size": 8}
        config["data"]["init_args"] |= {**sizes, "data_dir": str(tmp_path / "tiles")}
    if config["data"]["class_path"].endswith(".AITextDataModule"):
        # Instead of texts that a language model takes minutes to write.
        write_marker_corpus(tmp_path / "texts.jsonl", count=200)
        config["data"]["init_args"] |= {"path": str(tmp_path / "texts.jsonl"), "min_words": 1}
    cli = PluginCLI(run=False, args=config, **CLASSES)
    try:
        cli.model.configure_model()
        before = [parameter.clone() for parameter in cli.model.parameters()]
        cli.trainer.fit(cli.model, cli.datamodule)
    except FileNotFoundError as error:  # a missing asset; the message contains its install command
        pytest.skip(str(error))
    assert cli.trainer.global_step == 5
    assert any(
        not torch.equal(old, new) for old, new in zip(before, cli.model.parameters(), strict=True)
    )
    assert list(tmp_path.rglob("metrics.csv"))


def test_the_shown_yaml_trains_in_an_unmodified_lightning_cli(tmp_path, capsys):
    recipes_command(["show", "image/digits+late_sam"])
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    program = (
        "from lightning.pytorch.cli import LightningCLI\n"
        "LightningCLI(subclass_mode_model=True, subclass_mode_data=True)\n"
    )
    command = [*(sys.executable, "-c", program), "fit", "--config", "shown.yaml"]
    run = subprocess.run(
        [*command, "--trainer.max_steps=45", "--trainer.enable_progress_bar=false"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "sam/loss_gap" in next(tmp_path.rglob("metrics.csv")).read_text()


def test_the_late_sam_recipe_starts_sam_at_70_percent(tmp_path):
    callback = next(
        c
        for c in instantiated(PluginCLI, "late_sam/digits").trainer.callbacks
        if isinstance(c, LateSAM)
    )
    assert (callback.phase.start, callback.rho) == (0.7, 0.1)


def test_list_names_every_recipe_with_a_summary(capsys):
    assert recipes_command(["list"]) == 0
    listed = capsys.readouterr().out
    for recipe in list_recipes():
        assert recipe.name in listed
        assert recipe.summary
        assert recipe.summary in listed


def test_shown_recipes_contain_full_class_paths(capsys):
    for name in BASES:
        recipes_command(["show", name])
        config = yaml.safe_load(capsys.readouterr().out)
        for part in ("model", "data"):
            assert config[part]["class_path"].startswith("lightning_plugins.")


def test_show_names_the_file_and_line_of_each_value(capsys):
    for recipe in list_recipes():
        if not recipe.is_overlay:
            assert yaml.safe_load(with_sources(recipe.name)) == load_recipe(recipe.name)
    assert recipes_command(["show", "image/digits+late_sam", "--sources"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (rho,) = (line for line in lines if line.strip().startswith("rho:"))
    assert re.fullmatch(r"      rho: 0.05 +# \+late_sam:7", rho)
    (lr,) = (line for line in lines if line.strip().startswith("lr:"))
    assert lr.endswith(" # image/digits:30")


def test_copy_writes_the_shown_yaml_and_never_overwrites(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipes_command(["show", "image/digits+late_sam"])
    shown = capsys.readouterr().out
    assert recipes_command(["copy", "image/digits+late_sam"]) == 0
    assert (tmp_path / "image_digits_late_sam.yaml").read_text() == shown
    with pytest.raises(ValueError, match="exists: choose another name"):
        recipes_command(["copy", "image/digits+late_sam"])
    assert [path.name for path in tmp_path.iterdir()] == ["image_digits_late_sam.yaml"]
