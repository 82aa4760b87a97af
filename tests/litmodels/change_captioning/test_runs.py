"""Runs from the command line: an interrupted run, two processes, and the tiny recipe."""

import csv
import json
import os
import random
import subprocess
import sys

import pytest
import yaml
from kill_and_resume import assert_killed_run_resumes_exactly

pytest.importorskip("transformers")
pytest.importorskip("PIL")

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.recipes import load_recipe

pytestmark = pytest.mark.slow
STAGES = "lightning_plugins.callbacks.StagedTraining"


def lightning_plugins(folder, *arguments):
    run = subprocess.run(
        [sys.executable, "-m", "lightning_plugins", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def recipe(folder, epochs, **data):
    """Write the tiny recipe without pre-training, with the given epochs per stage and data."""
    config = load_recipe("change_captioning/tiny")
    callbacks = config["trainer"]["callbacks"]
    (staged,) = (one for one in callbacks if one["class_path"] == STAGES)
    for stage, length in zip(staged["init_args"]["stages"], epochs, strict=True):
        stage["epochs"] = length
    config["trainer"] |= {"max_epochs": sum(epochs), "enable_progress_bar": False}
    config["model"]["init_args"] |= {"pretrained": None, "max_new_tokens": 12}
    config["data"]["init_args"] |= {"data_dir": str(folder / "tiles"), **data}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_run_that_is_killed_in_its_second_stage_resumes_exactly(tmp_path):
    # A flattened epoch has five steps: the second stage has the steps 5 to 24, the third has one.
    sizes = {"num_train": 8, "batch_size": 8, "num_val": 2, "num_test": 2}
    path = recipe(tmp_path, (1, 4, 1), **sizes)
    ChangeCaptionDataModule(**sizes, data_dir=str(tmp_path / "tiles")).prepare_data()
    random.seed()
    assert_killed_run_resumes_exactly(["--config", str(path)], tmp_path, steps=26)


def test_two_processes_compute_the_same_test_scores_as_one(tmp_path):
    path = recipe(tmp_path, (1, 1, 1), num_train=24, batch_size=8, num_val=2, num_test=13)
    config = ["--config", str(path)]
    lightning_plugins(tmp_path, "fit", *config)
    (checkpoint,) = tmp_path.glob("runs/*/version_0/checkpoints/last.ckpt")
    scores = {}
    for devices, strategy in ((1, "auto"), (2, "ddp")):
        folder = tmp_path / strategy
        folder.mkdir()
        options = [f"--trainer.devices={devices}", f"--trainer.strategy={strategy}"]
        lightning_plugins(folder, "test", *config, f"--ckpt_path={checkpoint}", *options)
        (file,) = folder.rglob("metrics.csv")
        (row,) = csv.DictReader(file.read_text().splitlines())
        scores[strategy] = {name: row[name] for name in row if name.startswith("test/")}
    # The losses differ: they are means of means, and the sampler gives one pair to both processes.
    for found in scores.values():
        found.pop("test/loss")
    assert scores["auto"]["test/s_m"]
    assert scores["auto"] == scores["ddp"]


@pytest.mark.timeout(1800)  # four minutes of one core
def test_the_tiny_recipe_beats_constant_captions_and_captions_given_pairs(tmp_path):
    config = ["--config", "change_captioning/tiny", "--trainer.enable_progress_bar=false"]
    lightning_plugins(tmp_path, "fit", *config)
    (checkpoint,) = tmp_path.glob("runs/*/version_0/checkpoints/last.ckpt")
    (metrics,) = tmp_path.rglob("metrics.csv")
    rows = [row for row in csv.DictReader(metrics.read_text().splitlines()) if row["val/s_m"]]
    last = {name: float(value) for name, value in rows[-1].items() if name.startswith("val/")}
    assert last["val/s_m"] > last["val/constant_s_m"] + 0.4
    assert last["val/changed_s_m"] > 0.9  # a constant sentence about a house has 0.7
    assert last["val/change_accuracy"] > 0.8  # a constant claim of a change has 0.65
    assert (tmp_path / "captions" / "captions.html").stat().st_size > 10_000
    data = ChangeCaptionDataModule(num_train=1280)
    right = 0
    for record in data.records("test")[:4]:
        pair = [f"--data.before={record.before}", f"--data.after={record.after}"]
        lightning_plugins(tmp_path, "predict", *config, *pair, f"--ckpt_path={checkpoint}")
        (line,) = (tmp_path / "captions" / "captions.jsonl").read_text().splitlines()
        right += json.loads(line)["caption"] in record.captions
    assert right >= 1  # an exact match among dozens of possible sentences
