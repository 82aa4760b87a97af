"""The multipliers of Blockwise optimizers under schedules and callbacks that change groups."""

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR
from torch.utils.data import DataLoader, TensorDataset

from lightning_plugins.optimizers import BlockwiseAdamW


class Blocks(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"embed_tokens": nn.Linear(8, 16), "norm": nn.LayerNorm(16)})
        self.lm_head, self.lr = nn.Linear(16, 4), 1e-3

    def training_step(self, batch, batch_idx):
        hidden = self.backbone["norm"](self.backbone["embed_tokens"](batch[0]))
        return self.lm_head(hidden).square().mean()

    def configure_optimizers(self):
        trained = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        return BlockwiseAdamW(trained, lr=self.lr)


def trainer_and_loader(*callbacks, **options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        accelerator="cpu", callbacks=list(callbacks), **dict.fromkeys(quiet, False), **options
    )
    return trainer, DataLoader(TensorDataset(torch.randn(40, 8)), 8)


def ratio(optimizer):
    rate = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
    return rate["embedding"] / rate["norm"]


SCHEDULES = {
    "weight averaging": lambda o: SWALR(
        o, swa_lr=[1e-3 * group["multiplier"] for group in o.param_groups]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: (step + 1) / 8),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.01), lr_scheduler.CosineAnnealingLR(o, 9)], [2]
    ),
    "cycles": lambda o: lr_scheduler.CyclicLR(
        o, [group["lr"] for group in o.param_groups], [2 * g["lr"] for g in o.param_groups], 2
    ),
    "warm-up": lambda o: lr_scheduler.LinearLR(o, 1e-3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=[1e-3 * group["multiplier"] for group in o.param_groups], total_steps=10
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_multipliers_survive_schedules(kind):
    optimizer = BlockwiseAdamW(Blocks().named_parameters(), lr=1e-4)
    schedule = SCHEDULES[kind](optimizer)
    for _ in range(6):
        optimizer.step()
        schedule.step(*([1.0] if kind == "plateau" else []))
        assert ratio(optimizer) == pytest.approx(10)


def test_a_warm_up_from_zero_and_a_plateau_at_its_floor_are_not_refused():
    optimizer = BlockwiseAdamW(Blocks().named_parameters(), lr=1e-4)
    warm_up = lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    optimizer.step()
    warm_up.step()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.01, patience=0, min_lr=1e-5)
    for _ in range(5):
        optimizer.step()
        schedule.step(1.0)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=1e-3, total_steps=10),
        lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-3, cycle_momentum=False),
        lambda o: SWALR(o, swa_lr=1e-3),
        lambda o: [group.update(lr=1e-3) for group in o.param_groups],
    ],
    ids=["OneCycleLR", "CyclicLR", "SWALR", "assignment"],
)
def test_one_rate_for_all_blocks_is_refused(schedule):
    optimizer = BlockwiseAdamW(Blocks().named_parameters(), lr=1e-4)
    schedule(optimizer)
    with pytest.raises(ValueError, match=r"BlockwiseAdamW: \w*lr=[\d.e-]+ for all blocks"):
        optimizer.step()


def test_one_rate_that_is_assigned_after_the_first_step_warns_once():
    optimizer = BlockwiseAdamW(Blocks().named_parameters(), lr=1e-4)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    with pytest.warns(UserWarning, match="lr=0.001 was assigned to all blocks"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


def test_equal_multipliers_may_have_one_rate():
    ones = dict.fromkeys(("embedding", "norm", "head"), 1.0)
    optimizer = BlockwiseAdamW(Blocks().named_parameters(), lr=1e-4, multipliers=ones)
    lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=10)
    optimizer.step()


def test_the_learning_rate_finder_is_refused(tmp_path):
    trainer, loader = trainer_and_loader(max_epochs=3, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="run the learning-rate finder with AdamW"):
        Tuner(trainer).lr_find(Blocks(), loader, num_training=5)


def test_unfreezing_that_adds_a_group_is_refused(tmp_path):
    unfreeze = BackboneFinetuning(1)
    trainer, loader = trainer_and_loader(unfreeze, max_epochs=3, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="BlockwiseAdamW does not take parameters after its"):
        trainer.fit(Blocks(), loader)


def test_parameters_that_are_unfrozen_later_train():
    module = Blocks()
    module.backbone.requires_grad_(False)
    optimizer = BlockwiseAdamW(module.named_parameters(), lr=1e-2)
    before = module.backbone["norm"].weight.clone()
    module.backbone.requires_grad_(True)
    module.training_step([torch.randn(4, 8)], 0).backward()
    optimizer.step()
    assert not torch.equal(module.backbone["norm"].weight, before)
