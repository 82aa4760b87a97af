"""A run that is stopped by a signal continues with one command and ends with equal weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HARNESS = Path(__file__).parents[1] / "harness"
DIGITS = [
    *("--config", "late_sam/digits", "--trainer.max_epochs=3", "--trainer.limit_train_batches=12"),
    *("--trainer.check_val_every_n_epoch=1", "--data.init_args.random_shift=1"),
    *("--model.init_args.dropout=0.2", "--data.init_args.label_noise=0.1"),
]


def differences(folder, repeats, options):
    path = os.pathsep.join([str(HARNESS), os.environ.get("PYTHONPATH", "")])
    answer = subprocess.run(
        [sys.executable, HARNESS / "program_interrupted_runs.py", folder, repeats, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


def test_a_stopped_run_continues_bit_for_bit(tmp_path):
    assert differences(tmp_path, "1", DIGITS) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_stopped_runs_of_late_sam_continue_bit_for_bit(tmp_path):
    assert differences(tmp_path, "20", DIGITS) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_stopped_language_models_continue_bit_for_bit(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for part in ("train", "val"):
        lines = [f"{part} {index}: to be or not to be, that is {index}\n" for index in range(500)]
        (text / f"{part}.txt").write_text("".join(lines))
    options = [
        *("--config", "language_model/tiny", "--trainer.max_steps=60"),
        *("--trainer.val_check_interval=20", "--trainer.limit_val_batches=2"),
        *(f"--data.init_args.corpus={text}", f"--data.init_args.data_dir={tmp_path / 'tokens'}"),
        *("--data.init_args.batch_size=4", "--data.init_args.context_length=64"),
    ]
    assert differences(tmp_path / "runs", "20", options) == []


def two_processes(*arguments):
    """Return exit code and output; all processes are killed after five minutes."""
    program = subprocess.Popen(
        [sys.executable, "-m", "lightning_plugins", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = program.communicate(timeout=300)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    return program.returncode, output


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(users_folder):
    options = [
        *("--config=image/digits", "--trainer.devices=2", "--trainer.strategy=ddp"),
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=8"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    ]
    code, output = two_processes("fit", *options)
    assert code == 0, output
    expected = torch.load("runs/digits/version_0/checkpoints/last.ckpt", weights_only=True)
    code, output = two_processes("fit", *options, "--trainer.callbacks+=my_pkg.Terminates")
    assert code == 128 + signal.SIGTERM, output
    assert output.count("continue with: lightning-plugins fit --resume runs/digits/version_1") == 1
    saved = torch.load("runs/digits/version_1/checkpoints/interrupted.ckpt", weights_only=True)
    assert saved["global_step"] == 10
    code, output = two_processes("fit", "--resume=last")
    assert code == 0, output
    found = torch.load("runs/digits/version_1/checkpoints/last.ckpt", weights_only=True)
    assert found["global_step"] == expected["global_step"] == 16
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value)
