import pytest
import torch

from lightning_plugins.optimizers import WarmupStableDecay


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


def test_the_floor_is_a_share_of_the_initial_rate():
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
def test_bad_arguments_are_named(arguments, named):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=named):
        WarmupStableDecay(optimizer, **{"total_steps": 10, **arguments})


def test_a_longer_run_that_resumes_decays_at_its_own_end():
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
