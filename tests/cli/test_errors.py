"""Each user error is reported in one line with exit code 2."""

import sys

import pytest

from lightning_plugins.errors import UserError, user_errors_in_one_line

MINE = ["--model", "my_pkg.MyModel", "--data", "my_pkg.MyData"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--config", "nope"], "no recipe or file named 'nope': see `lightning-plugins recipes"),
        (["--config", "image/digit"], "did you mean image/digits or"),
        (["--config", "image/digits+late_sm"], "no overlay named 'late_sm': did you mean late_sam"),
        (["--model", "my_pkg.MyModle"], "did you mean MyModel?"),
        (["--model", "ImageClasifier"], "did you mean ImageClassifier"),
        ([*MINE, "--trainer.callbacks+=LateSAMM"], "did you mean LateSAM?"),
        ([*MINE, "--optimizer", "SGDD"], "did you mean SGD"),
        ([*MINE, "--model.width", "x"], "--model.width: expected a whole number, got 'x'"),
        (
            [*MINE, "--trainer.callbacks+=LateSAM", "--trainer.callbacks.accumulation={a: 1}"],
            "--trainer.callbacks.accumulation: expected one of exact, micro-batch, got a mapping",
        ),
        (
            [*MINE, "--model.widht", "3"],
            "--model.widht: unknown option; did you mean --model.width?",
        ),
        (
            [*MINE, "--trainer.max_epochs", "x"],
            "--trainer.max_epochs: expected a whole number or null, got 'x'",
        ),
        ([*MINE, "--trainer.max_epoch", "3"], "did you mean --trainer.max_epochs"),
        ([*MINE, "--model.width", "-1"], "width=-1: expected 0 or more"),
        (
            [*MINE, "--trainer.callbacks+=LateSAM", "--trainer.callbacks.rho=-1"],
            "rho=-1.0: expected a positive finite radius",
        ),
        (
            [*MINE, "--trainer.callbacks+=LateSAM", "--trainer.callbacks.rho=x"],
            "--trainer.callbacks.rho: expected a number, got 'x'",
        ),
        (
            [*MINE, "image/digits"],
            "unexpected argument 'image/digits'; did you mean --config image",
        ),
        ([*MINE, "--max_epochs=3"], "did you mean --trainer.max_epochs?"),
        ([*MINE, "--trainer.devices=None"], "--trainer.devices: `devices` selected with"),
        ([*MINE, "--trainer.accelerator=gpu"], "--trainer.accelerator: No supported gpu backend"),
        (
            ["--config", "image/digits", "--data.init_args.label_noise=2"],
            "label_noise=2.0: expected a fraction in [0, 1]",
        ),
    ],
)
def test_a_user_error_is_reported_in_one_line(fit, options, told):
    answer = fit(*options)
    assert told in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("lightning-plugins: ")
    assert answer.code == 2


def test_a_missing_package_is_one_line_with_the_install_command(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    answer = fit("--config", "image/digits", "--model.init_args.network=vit_tiny_patch16_224")
    assert answer.code == 2
    assert 'pip install "timm>=1.0.3"' in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=/proc/x"],
            "--trainer.logger.save_dir: No such file or directory: /proc/x",
        ),
        (["--ckpt_path=none.ckpt"], "--ckpt_path: Checkpoint file not found"),
    ],
)
def test_an_error_of_the_environment_ends_with_one_line(fit, options, told):
    answer = fit(*MINE, *options)
    assert answer.code == 2
    ours = [line for line in answer.err.splitlines() if line.startswith("lightning-plugins: ")]
    assert len(ours) == 1  # after what Lightning logs about the machine
    assert told in ours[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer:\n\tmax_epochs: 1\n", "mine.yaml:2: invalid YAML: a tab; indent with spaces"),
        ("", "mine.yaml: the file is empty"),
        ("- a\n", "mine.yaml: expected a mapping of options such as `trainer: ...`, got a list"),
        ("model: A\nmodel: B\n", "mine.yaml:2: the key 'model' occurs twice, first in line 1"),
        ("recipe: image/digts\n", "mine.yaml:1: recipe: no recipe or file named 'image/digts'"),
        ("trainer:\n  max_epochs: a\n", "mine.yaml:2: trainer.max_epochs: expected a whole number"),
        ("a: &a [*a]\n", "mine.yaml"),
        (
            "recipe: image/digits\ntrainer:\n  callbacks+:\n  - class_path: LateSAM\n"
            "    init_args: {rho: -1}\n",
            "mine.yaml:5: trainer.callbacks.2.init_args.rho: rho=-1.0: expected a positive",
        ),
        (
            "recipe: image/digits\nmodel:\n  init_args:\n    optimizer:\n      init_args:\n"
            "        momentm: 1\n",
            "mine.yaml:6: model.init_args.optimizer.init_args.momentm: unknown key; did you mean "
            "momentum?",
        ),
    ],
)
def test_an_error_in_a_file_names_file_line_and_key(fit, users_folder, text, told):
    (users_folder / "mine.yaml").write_text(text)
    answer = fit("--config", "mine.yaml")
    assert answer.code == 2
    assert told in answer.err
    assert answer.err.count("\n") == 1


def test_a_long_message_is_shortened_and_debug_shows_all(fit, command):
    name = "x" * 1000
    answer = fit("--config", "image/digits", f"--model.init_args.network={name}")
    assert len(answer.err) < 330
    assert "--debug shows all" in answer.err


def test_check_builds_a_configuration_without_training(command, users_folder):
    answer = command("check", "late_sam/digits")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("valid: ImageClassifier with 26,")
    answer = command("check", "late_sam/digits", "--trainer.callbacks.start=3")
    assert answer.code == 2
    assert not (users_folder / "runs").exists()


def test_broken_yaml_is_one_line(fit, users_folder):
    (users_folder / "broken.yaml").write_text("trainer: {max_epochs: [\n")
    answer = fit("--config", "broken.yaml")
    assert answer.code == 2
    assert answer.err.count("\n") == 1


def test_an_invalid_configuration_is_refused_before_data_is_prepared(fit):
    answer = fit(
        *MINE,
        "--trainer.callbacks+=LateSAM",
        "--trainer.callbacks.unit=epoch",
        "--trainer.callbacks.start=5",
        "--trainer.max_epochs=2",
    )
    assert answer.code == 2
    assert "the run ends at epoch 2" in answer.err
    assert "prepared" not in answer.out


def test_debug_shows_the_traceback(command):
    with pytest.raises(ValueError, match="no recipe or file named 'nope'"):
        command("fit", "--config", "nope", "--debug")


def test_an_error_in_training_keeps_its_traceback(fit):
    with pytest.raises(ValueError, match="found while training"):
        fit(*MINE, "--trainer.callbacks+=my_pkg.FailsInTraining")


@pytest.mark.parametrize("word", ["recipe", "train"])
def test_an_unknown_command_is_one_line(command, word):
    answer = command(word)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert f"no command named '{word}'" in answer.err


def test_without_a_command_the_usage_is_printed(command):
    answer = command()
    assert answer.code == 2
    assert "usage: lightning-plugins" in answer.out


def test_control_characters_of_a_foreign_name_do_not_reach_the_terminal():
    with pytest.raises(UserError) as raised, user_errors_in_one_line():
        raise ValueError("no column \x1b[2J\x07é")
    assert str(raised.value) == "no column \\x1b[2J\\x07é"
