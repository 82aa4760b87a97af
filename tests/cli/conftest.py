import sys
from types import SimpleNamespace

import pytest

from lightning_plugins.__main__ import main

MY_PACKAGE = '''
import os
import pathlib
import signal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel


class MyModel(BoringModel):
    def __init__(self, width: int = 3):
        super().__init__()
        if width < 0:
            raise ValueError(f"width={width}: expected 0 or more")


class MyData(BoringDataModule):
    def prepare_data(self):
        super().prepare_data()
        print("prepared")


class FailsInTraining(Callback):
    def on_train_batch_end(self, *_):
        raise ValueError("found while training")


class Terminates(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 9 and trainer.global_rank == 0:
            if not pathlib.Path("sent").exists():
                pathlib.Path("sent").touch()
                os.kill(os.getpid(), signal.SIGTERM)


class FullDisk(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6 and not pathlib.Path("full").exists():
            pathlib.Path("full").touch()
            raise OSError(28, "No space left on device", "runs/metrics.csv")


class Summarized(Callback):
    def run_summary(self, trainer):
        return f"{trainer.global_step} batches"


class WritesRates(Callback):
    def on_train_batch_end(self, trainer, *_):
        rates = [group["lr"] for one in trainer.optimizers for group in one.param_groups]
        with open("rates", "a") as file:
            print(*rates, file=file)


class ComparesWeights(Callback):
    """Leaves the file ``equal`` if the weights are those of the checkpoint."""

    def on_test_start(self, trainer, pl_module):
        saved = torch.load(trainer.ckpt_path, weights_only=True)["state_dict"]
        found = pl_module.state_dict()
        if found.keys() == saved.keys() and all(map(torch.equal, found.values(), saved.values())):
            pathlib.Path("equal").touch()

    on_predict_start = on_test_start
'''


@pytest.fixture
def users_folder(tmp_path, monkeypatch):
    """The current directory, with a user's module ``my_pkg``."""
    (tmp_path / "my_pkg.py").write_text(MY_PACKAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_pkg", raising=False)
    return tmp_path


@pytest.fixture
def command(users_folder, capsys):
    """Run the command line in this process and return its output."""

    def run(*arguments):
        code = main(list(arguments))
        answer = capsys.readouterr()
        return SimpleNamespace(code=code, out=answer.out, err=answer.err)

    return run


@pytest.fixture
def fit(command):
    """Run ``fit`` for three batches, without output."""

    def run(*options):
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
        return command("fit", *options, "--trainer.max_steps=3", *quiet)

    return run
