"""The claims on late-phase SAM run, and an interrupted reproduction resumes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from lightning_plugins.claims import load_paper
from lightning_plugins.claims.measurements.late_sam import run_switch
from lightning_plugins.claims.published_runs import published_lines
from lightning_plugins.recipes import load_recipe


def test_each_arm_takes_as_many_sam_steps_as_its_name_says():
    experiment = load_paper("late-sam").at("smoke").experiment("switch")
    steps = {}
    for arm in experiment.arms:
        config = experiment.config(arm, "smoke")
        config["overrides"]["trainer.max_epochs"] = 3
        metrics = run_switch(config, seed=1)["metrics"]
        assert metrics["test_accuracy"] > 50
        assert metrics["lambda_max"] > 0
        steps[arm] = metrics["sam_steps"]
    assert steps == {"SGD": 0, "late SAM": 36, "SAM": 120}


def test_a_cell_depends_only_on_its_seed():
    config = load_paper("late-sam").experiment("switch").config("late SAM", "smoke")
    config["overrides"]["trainer.max_epochs"] = 2
    cells = [run_switch(config, seed)["metrics"] for seed in (1, 1, 2)]
    for cell in cells:
        del cell["seconds"]
    assert cells[0] == cells[1] != cells[2]


def test_the_commands_of_the_paper_scale_use_existing_recipes():
    commands = [c for c in published_lines(load_paper("late-sam")) if not c.startswith("#")]
    assert len(commands) == 15
    for command in commands:
        load_recipe(re.search(r"--config (\S+)", command)[1])


@pytest.mark.slow
def test_a_killed_reproduction_reuses_the_finished_cells(tmp_path):
    command = [
        *(sys.executable, "-m", "lightning_plugins", "reproduce", "late-sam"),
        *("--scale", "smoke", "--output", str(tmp_path)),
    ]
    killed = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("cells/*.json"))) < 4:
        assert killed.poll() is None
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*.json")}
    assert len(finished) < 9
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"9 cells, reusing {len(finished)} finished" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert (tmp_path / "report.html").exists()
