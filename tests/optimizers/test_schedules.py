"""The schedules against independent formulas, and their steps inside a fit."""

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn

from lightning_plugins.optimizers import (
    BlockwiseAdamW,
    BlockwiseSchedule,
    WarmupCosine,
    WarmupStableDecay,
    configure_optimizers,
)

STEPS, WARMUP, BASE, FLOOR = 60, 0.03, 1e-2, 5e-4


def optimizer():
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(3, 2), "norm": nn.LayerNorm(2)})
    return BlockwiseAdamW(model.named_parameters(), lr=BASE)


def released(shape, iteration, multiplier, stretch):
    """``get_lr`` of the released code at its iteration, counted from 0."""
    peak = BASE * multiplier
    warmup = WARMUP * STEPS * (multiplier if stretch else 1)
    if iteration <= warmup:
        return peak * iteration / warmup
    if shape == "cosine":
        share = (iteration - warmup) / (STEPS - warmup)
        return FLOOR + 0.5 * (1 + math.cos(math.pi * share)) * (peak - FLOOR)
    first, second = STEPS // 3, 2 * STEPS // 3
    if iteration <= first:
        return peak
    if iteration <= second:
        return peak + (peak - BASE) / (first - second) * (iteration - first)
    return BASE + (FLOOR - BASE) / (STEPS - second) * (iteration - second)


@pytest.mark.parametrize("stretch", [False, True])
@pytest.mark.parametrize("shape", ["cosine", "wsd_thirds"])
def test_the_trajectory_equals_the_released_codes(shape, stretch):
    ours = optimizer()
    schedule = BlockwiseSchedule(
        ours, STEPS, shape=shape, warmup=WARMUP, floor=FLOOR, stretch_warmup=stretch
    )
    for step in range(STEPS):
        for group in ours.param_groups:
            wanted = released(shape, step + 1, group["multiplier"], stretch)
            assert group["lr"] == pytest.approx(wanted, rel=1e-12)
        ours.step()
        schedule.step()
    for group in ours.param_groups:
        assert group["lr"] == pytest.approx(FLOOR, rel=1e-12)


def test_without_blocks_the_schedule_is_the_baseline_with_the_same_floor():
    plain = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=BASE)
    schedule = BlockwiseSchedule(plain, STEPS, warmup=WARMUP, floor=FLOOR)
    for step in range(STEPS):
        assert plain.param_groups[0]["lr"] == pytest.approx(
            released("cosine", step + 1, 1, False), rel=1e-12
        )
        plain.step()
        schedule.step()


def test_warmup_cosine_equals_its_formula():
    plain = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = WarmupCosine(plain, 40, warmup=0.1, floor=0.25)
    for step in range(41):
        share = (step - 4) / 36
        wanted = (step + 1) / 4 if step < 4 else 0.25 + 0.375 * (1 + math.cos(math.pi * share))
        assert plain.param_groups[0]["lr"] == pytest.approx(2 * wanted, rel=1e-12)
        plain.step()
        schedule.step()


@pytest.mark.parametrize("make", [BlockwiseSchedule, WarmupCosine])
def test_a_resumed_schedule_continues(make):
    first, second = optimizer(), optimizer()
    straight, before = make(first, STEPS, warmup=WARMUP), make(second, STEPS, warmup=WARMUP)
    for _ in range(20):
        first.step()
        straight.step()
    for _ in range(10):
        second.step()
        before.step()
    third = optimizer()
    after = make(third, STEPS, warmup=WARMUP)
    after.load_state_dict(before.state_dict())
    for _ in range(10):
        third.step()
        after.step()
    assert straight.get_last_lr() == after.get_last_lr()


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def test_in_a_fit_the_rate_changes_every_optimizer_step(tmp_path):
    class Scheduled(BoringModel):
        def configure_optimizers(self):
            return configure_optimizers(
                self,
                lambda params: torch.optim.SGD(params, lr=0.1),
                lambda chosen, total_steps: BlockwiseSchedule(chosen, total_steps, floor=0.01),
            )

    rates = Rates()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=12,
        limit_val_batches=0,
        accumulate_grad_batches=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[rates],
    )
    trainer.fit(Scheduled())
    assert len(rates.seen) == 8  # 24 batches, three a step
    assert rates.seen == sorted(set(rates.seen), reverse=True)
    assert rates.seen[-1] == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_steps": None}, "total_steps=None"),
        ({"total_steps": 0}, "total_steps=0"),
        ({"shape": "linear"}, "shape='linear'.*cosine or wsd_thirds"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"floor": -1e-3}, "floor=-0.001"),
        ({"floor": 0.5}, "floor=0.5 is above"),
        ({"warmup": 0.2, "stretch_warmup": True}, "warmup=0.2: multiplier 10 stretches it to 2"),
        ({"warmup": 0.4, "shape": "wsd_thirds"}, "must end before 0.333"),
    ],
)
def test_invalid_arguments_raise_an_error_that_names_them(arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockwiseSchedule(optimizer(), **{"total_steps": STEPS, **arguments})


@pytest.mark.parametrize("arguments", [{"total_steps": 0}, {"warmup": 1.5}, {"floor": 2.0}])
def test_invalid_arguments_of_warmup_cosine_raise_an_error(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        WarmupCosine(optimizer(), **{"total_steps": STEPS, **arguments})


def rates(steps, **arguments):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = WarmupStableDecay(optimizer, total_steps=steps, **arguments)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen, optimizer.param_groups[0]["lr"]


def test_the_rate_rises_stays_and_falls_linearly():
    seen, end = rates(10, warmup=0.2, decay=0.4, floor=0.0)
    assert seen == pytest.approx([1, 2, 2, 2, 2, 2, 2, 1.5, 1, 0.5])
    assert end == 0


def test_the_floor_is_a_fraction_of_the_initial_rate():
    _, end = rates(10, decay=0.5, floor=0.1)
    assert end == pytest.approx(0.2)


def test_without_decay_the_rate_is_constant():
    seen, end = rates(5, decay=0.0)
    assert seen == [2.0] * 5
    assert end == 2.0


def test_beyond_the_end_the_rate_stays_at_the_floor():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = WarmupStableDecay(optimizer, total_steps=10)
    assert schedule.multiplier(50) == 0.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"total_steps": None}, "total_steps=None"),
        ({"total_steps": 0}, "total_steps=0"),
        ({"warmup": 1.0}, r"warmup=1\.0"),
        ({"warmup": 0.5, "decay": 0.6}, r"decay=0\.6"),
        ({"floor": 2.0}, r"floor=2\.0"),
    ],
)
def test_invalid_arguments_of_warmup_stable_decay_are_named(arguments, named):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=named):
        WarmupStableDecay(optimizer, **{"total_steps": 10, **arguments})


def test_a_resumed_longer_run_decays_at_its_own_end():
    def schedule(total_steps):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return optimizer, WarmupStableDecay(optimizer, total_steps=total_steps, decay=0.5)

    optimizer, short = schedule(10)
    for _ in range(10):
        optimizer.step()
        short.step()
    longer_optimizer, longer = schedule(40)
    longer.load_state_dict(short.state_dict())
    longer_optimizer.step()
    longer.step()
    assert longer.total_steps == 40
    assert longer_optimizer.param_groups[0]["lr"] == 1.0
