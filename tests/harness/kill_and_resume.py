"""Kills a run with SIGKILL, resumes it, and compares its end with an uninterrupted run.

The tests of every recipe and plugin with exact resume use it::

    assert_killed_run_resumes_exactly(["--config", "image/digits"], tmp_path, steps=160)
"""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback

_HARNESS = Path(__file__).parent
_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class KillAt(Callback):
    """Ends the process with SIGKILL, as a scheduler or the kernel may."""

    def __init__(self, step: int, hook: str) -> None:
        def kill(trainer, *_, **__):
            if trainer.global_step >= step:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, hook, kill)


def assert_killed_run_resumes_exactly(
    options: list[str], folder: Path, steps: int, checkpoint_every: int = 7
) -> None:
    """Assert that a kill at a random moment changes neither weights, optimizer nor schedule.

    Args:
        options: Options of ``lightning-plugins fit``, for a run of ``steps`` optimizer steps.
        folder: An empty folder for the output of the runs.
        steps: Optimizer steps of the whole run.
        checkpoint_every: Optimizer steps between checkpoints.
    """
    step, hook = random.randrange(checkpoint_every + 1, steps), random.choice(_HOOKS)
    moment = f"killed in {hook} at step {step} of {steps}"
    uninterrupted = _fit(options, folder / "uninterrupted", checkpoint_every)
    killed = _fit(
        [
            *options,
            "--trainer.callbacks+=kill_and_resume.KillAt",
            f"--trainer.callbacks.step={step}",
            f"--trainer.callbacks.hook={hook}",
        ],
        folder / "killed",
        checkpoint_every,
    )
    uninterrupted.communicate()
    killed.communicate()
    assert uninterrupted.returncode == 0, _log(folder / "uninterrupted")
    assert killed.returncode == -signal.SIGKILL, f"{moment}: {_log(folder / 'killed')}"
    last = folder / "killed" / "checkpoints" / "last.ckpt"
    resumed = _fit([*options, f"--ckpt_path={last}"], folder / "resumed", checkpoint_every)
    resumed.communicate()
    assert resumed.returncode == 0, f"{moment}: {_log(folder / 'resumed')}"
    expected, found = (_end(folder / run) for run in ("uninterrupted", "resumed"))
    assert expected["global_step"] == found["global_step"] == steps, moment
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        difference = first_difference(expected[part], found[part], part)
        assert difference is None, f"{moment}: {difference}"


def first_difference(expected: object, found: object, place: str) -> str | None:
    """Describe the first place where two nested states differ by a bit, or return None."""
    if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        return None if torch.equal(expected, found) else f"{place} differs"
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        pairs = ((expected[key], found[key], f"{place}.{key}") for key in expected)
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return f"{place} has {len(found)} entries instead of {len(expected)}"
        pairs = (
            (*both, f"{place}.{index}")
            for index, both in enumerate(zip(expected, found, strict=True))
        )
    else:
        return None if expected == found else f"{place} is {found!r} instead of {expected!r}"
    return next(filter(None, (first_difference(*pair) for pair in pairs)), None)


def _fit(options: list[str], folder: Path, checkpoint_every: int) -> subprocess.Popen:
    folder.mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "lightning_plugins", "fit"),
        *options,
        f"--trainer.default_root_dir={folder}",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder / 'checkpoints'}",
        "--trainer.callbacks.save_last=true",
        f"--trainer.callbacks.every_n_train_steps={checkpoint_every}",
        "--trainer.callbacks+=kill_and_resume.SaveEnd",
        f"--trainer.callbacks.path={folder / 'end.ckpt'}",
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(_HARNESS), os.environ.get("PYTHONPATH", "")]),
    }
    with open(folder / "log.txt", "w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


class SaveEnd(Callback):
    """Saves a checkpoint at the end of training."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


def _end(folder: Path) -> dict:
    return torch.load(folder / "end.ckpt", weights_only=True)


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text()[-3000:]
