import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lightning_plugins.cli import PluginCLIMixin

MINE = ["--model", "my_pkg.MyModel", "--data", "my_pkg.MyData"]


def test_a_recipe_trains_with_python_dash_m(users_folder):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "lightning_plugins", "fit", "--config", "late_sam/digits"),
            *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (log,) = users_folder.glob("runs/late_sam_digits/version_0/metrics.csv")
    assert "sam/loss_gap" in log.read_text()


def test_classes_in_the_current_directory_are_found(fit):
    answer = fit(*MINE, "--trainer.logger=false", "--trainer.callbacks+=LateSAM")
    assert answer.code == 0, answer.err
    assert "prepared" in answer.out


def test_the_configuration_is_saved_and_a_second_run_in_the_folder_overwrites_it(fit, users_folder):
    options = [*MINE, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs"]
    for width in (4, 5):
        answer = fit(*options, "--trainer.logger.version=0", f"--model.width={width}")
        assert answer.code == 0, answer.err
    (saved,) = users_folder.rglob("config.yaml")
    assert yaml.safe_load(saved.read_text())["model"]["init_args"]["width"] == 5


def parsed(*options):
    class MyCLI(PluginCLIMixin, LightningCLI):
        pass

    return MyCLI(BoringModel, BoringDataModule, run=False, args=list(options))


def test_an_optimizer_on_the_command_line_gets_parameter_names():
    cli = parsed("--optimizer=SGD", "--optimizer.lr=0.5")
    optimizer = cli.model.configure_optimizers()
    assert optimizer.param_groups[0]["param_names"] == ["layer.weight", "layer.bias"]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_schedule_on_the_command_line_advances_every_step(tmp_path):
    cli = parsed(
        "--optimizer=SGD",
        "--optimizer.lr=0.5",
        "--lr_scheduler=lightning_plugins.optimizers.WarmupStableDecay",
        "--lr_scheduler.decay=0.5",
        "--trainer.max_steps=4",
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={tmp_path}",
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    schedule = cli.trainer.lr_scheduler_configs[0].scheduler
    assert (schedule.total_steps, schedule.last_epoch) == (4, 4)


@pytest.mark.parametrize("optimizer", [[], ["--optimizer=Adam"]])
def test_without_a_schedule_the_optimizer_is_configured_as_by_lightning(optimizer):
    cli = parsed(*optimizer)
    configured = cli.model.configure_optimizers()
    expected = torch.optim.Adam if optimizer else tuple  # BoringModel's own
    assert isinstance(configured, expected)


def test_a_users_file_is_accepted_in_place_of_a_recipe(fit, users_folder):
    (users_folder / "mine.yaml").write_text("model: my_pkg.MyModel\ndata: my_pkg.MyData\n")
    answer = fit("--config", "mine.yaml", "--trainer.logger=false")
    assert answer.code == 0, answer.err


def test_validate_test_and_predict_accept_recipes_and_checkpoints(command, fit):
    options = ["--config", "image/digits", "--trainer.enable_progress_bar=false"]
    assert fit("--config", "image/digits").code == 0
    for subcommand in ("validate", "test", "predict"):
        extra = ["--ckpt_path=runs/digits/version_0/checkpoints/last.ckpt"]
        answer = command(subcommand, *options, *extra)
        assert answer.code == 0, answer.err
