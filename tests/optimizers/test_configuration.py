from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, StepLR
from torch.utils.data import DataLoader, IterableDataset

from lightning_plugins.optimizers import (
    WarmupStableDecay,
    build_optimizer,
    configure_optimizers,
)

SGD = partial(torch.optim.SGD, lr=0.1)


class Configured(BoringModel):
    def __init__(self, optimizer=SGD, lr_scheduler=None):
        super().__init__()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler

    def configure_optimizers(self):
        return configure_optimizers(self, self.optimizer, self.lr_scheduler)


def fit(module, tmp_path, **arguments):
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, "limit_train_batches": 6, "limit_val_batches": 1, **arguments},
    )
    trainer.fit(module)
    return trainer


def test_the_optimizer_receives_parameter_names():
    optimizer = build_optimizer(SGD, BoringModel())
    assert optimizer.param_groups[0]["param_names"] == ["layer.weight", "layer.bias"]


def test_an_optimizer_without_support_for_names_receives_bare_parameters():
    class Bare(torch.optim.SGD):
        def __init__(self, params, lr):
            super().__init__([p for p in params if p.requires_grad], lr)

    optimizer = build_optimizer(partial(Bare, lr=0.1), BoringModel())
    assert len(optimizer.param_groups[0]["params"]) == 2


def test_an_error_in_the_optimizer_is_not_hidden():
    with pytest.raises(TypeError, match="momentun"):
        build_optimizer(partial(torch.optim.SGD, momentun=0.9), BoringModel())


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(
    "schedule", [WarmupStableDecay, partial(OneCycleLR, max_lr=1.0)], ids=["ours", "torch"]
)
def test_a_schedule_receives_the_optimizer_steps_of_the_run(tmp_path, schedule, accumulate):
    module = Configured(lr_scheduler=schedule)
    trainer = fit(module, tmp_path, accumulate_grad_batches=accumulate)
    built = trainer.lr_scheduler_configs[0].scheduler
    assert built.total_steps == built.last_epoch == trainer.global_step == -(-6 // accumulate) * 2


def test_explicit_total_steps_are_not_replaced(tmp_path):
    module = Configured(lr_scheduler=partial(WarmupStableDecay, total_steps=77))
    assert fit(module, tmp_path).lr_scheduler_configs[0].scheduler.total_steps == 77


@pytest.mark.parametrize(
    ("schedule", "advances"),
    [
        (partial(StepLR, step_size=1), 2),
        (partial(CyclicLR, base_lr=0.1, max_lr=1.0), 12),
    ],
    ids=["epochs", "steps"],
)
def test_a_schedule_advances_per_step_or_per_epoch_as_it_requires(tmp_path, schedule, advances):
    trainer = fit(Configured(lr_scheduler=schedule), tmp_path)
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == advances


def test_a_plateau_schedule_monitors_its_metric(tmp_path):
    class Logs(Configured):
        def validation_step(self, batch, batch_idx):
            self.log("watched", self.step(batch))

    module = Logs(lr_scheduler=partial(ReduceLROnPlateau, monitor="watched"))
    assert fit(module, tmp_path).lr_scheduler_configs[0].monitor == "watched"


def test_a_run_without_an_end_raises_an_error(tmp_path):
    module = Configured(lr_scheduler=WarmupStableDecay)
    with pytest.raises(ValueError, match=r"set trainer\.max_steps, or trainer\.max_epochs"):
        fit(module, tmp_path, max_epochs=-1)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.randn(6, 32))


class Streamed(Configured):
    def train_dataloader(self):
        return DataLoader(Stream())


def test_a_loader_without_a_length_requires_max_steps_or_total_steps(tmp_path):
    everything = {"limit_train_batches": 1.0}
    with pytest.raises(ValueError, match=r"has no known end: set trainer\.max_steps"):
        fit(Streamed(lr_scheduler=WarmupStableDecay), tmp_path, **everything)
    module = Streamed(lr_scheduler=WarmupStableDecay)
    trainer = fit(module, tmp_path, max_steps=8, **everything)
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == trainer.global_step == 8


def test_total_steps_include_changes_of_the_accumulation(tmp_path):
    module = Configured(lr_scheduler=WarmupStableDecay)
    trainer = fit(module, tmp_path, callbacks=[GradientAccumulationScheduler({1: 4})])
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == trainer.global_step == 8
