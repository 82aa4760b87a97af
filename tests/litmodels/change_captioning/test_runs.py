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


THREE_STAGES = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from lightning.pytorch import Trainer
from PIL import Image
from lightning_plugins.callbacks import StagedTraining, TrainingStage
from lightning_plugins.datamodules import ChangeCaptionDataModule
from lightning_plugins.litmodels import ChangeCaptioner

torch.set_num_threads(1)
folder = Path("data")
images = []
for place in range(10):
    split = "val" if place > 7 else "train"
    for side in "AB":
        where = folder / "images" / split / side
        where.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (64 + 40 * (place % 3), 96, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(where / f"{place}.png")
    images.append({"filename": f"{place}.png", "split": split,
                   "sentences": [{"raw": f"house {place} is built"}]})
(folder / "captions.json").write_text(json.dumps({"images": images}))
stages = [
    TrainingStage(1, {"difference|multi_modal_projector": 1e-3}),
    TrainingStage(1, {"vision_tower": 1e-4, ".*": 1e-3}),
    TrainingStage(1, {".*": 1e-3}),
]
model = ChangeCaptioner(zero_gate=False, vocab_size=152000, gradient_checkpointing=True,
                        max_new_tokens=4)
trainer = Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
                  callbacks=[StagedTraining(stages)])
trainer.fit(model, datamodule=ChangeCaptionDataModule("data", batch_size=4))
assert trainer.global_step == 6
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_three_stages_with_152k_tokens_and_several_sizes_need_less_than_1_5_gb(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", THREE_STAGES],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    gib = float(run.stdout.split()[-1])
    print(f"peak {gib:.2f} GiB resident")
    assert gib < 1.5e9 / 2**30


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
    run = checkpoint.parents[1]
    assert (run / "captions.html").stat().st_size > 10_000
    data = ChangeCaptionDataModule(num_train=1280)
    right = 0
    for record in data.records("test")[:4]:
        pair = [f"--data.before={record.before}", f"--data.after={record.after}"]
        lightning_plugins(tmp_path, "predict", *config, *pair, "--run=last")
        (line,) = (run / "predict" / "captions.jsonl").read_text().splitlines()
        right += json.loads(line)["caption"] in record.captions
    assert right >= 1  # an exact match among dozens of possible sentences
