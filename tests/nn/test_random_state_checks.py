import copy

import pytest
import torch

from lightning_plugins.nn.random_state import RandomState


def changed(path, value):
    state = copy.deepcopy(RandomState.capture().to_plain())
    holder = state
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return state


def words(count, last=0, fill=1):
    return torch.tensor([fill] * (count - 1) + [last], dtype=torch.int64)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("numpy", 2), 10**9),
        (("numpy", 2), -1),
        (("numpy", 2), 625),
        (("numpy", 2), 1.5),
        (("numpy", 1), words(623)),
        (("numpy", 1), words(624, fill=-1)),
        (("numpy", 1), words(624, fill=2**32)),
        (("numpy", 1), [1] * 624),
        (("numpy", 0), "PCG64"),
        (("numpy", 3), 2),
        (("numpy", 4), float("nan")),
        (("numpy",), []),
        (("python", 0), 2),
        (("python", 1), words(625, last=625)),
        (("python", 1), words(625, last=-1)),
        (("python", 1), words(10**4)),
        (("python", 2), "x"),
        (("python",), None),
        (("torch",), torch.zeros(3, dtype=torch.uint8)),
        (("torch",), torch.zeros(5056)),
        (("torch",), None),
        (("cuda",), {0: torch.zeros(15, dtype=torch.uint8)}),
        (("cuda",), {-1: torch.zeros(16, dtype=torch.uint8)}),
        (("cuda",), {"x": torch.zeros(16, dtype=torch.uint8)}),
        (("cuda",), 3),
    ],
)
def test_a_forged_state_is_refused_before_a_generator_gets_it(path, value):
    with pytest.raises(ValueError, match="state of the random generators is refused"):
        RandomState.from_plain(changed(path, value))


def test_a_captured_state_is_accepted():
    captured = RandomState.capture()
    restored = RandomState.from_plain(captured.to_plain())
    assert restored.python == captured.python
    assert torch.equal(restored.torch, captured.torch)
