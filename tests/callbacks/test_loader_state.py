"""States of generators that somebody else wrote into a checkpoint."""

import json
import random

import numpy as np
import pytest
import torch

from lightning_plugins.callbacks.loader_state import _restore, _saved

KINDS = {
    "torch": lambda seed: torch.Generator().manual_seed(seed),
    "Python": random.Random,
    "RandomState": np.random.RandomState,
    **{
        name: lambda seed, name=name: np.random.Generator(getattr(np.random, name)(seed))
        for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
    },
}


def draw(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(2, generator=generator).tolist()
    return [generator.random() for _ in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_the_generator_is_restored(kind):
    saved = KINDS[kind](1)
    draw(saved)
    restored = KINDS[kind](2)
    _restore(restored, _saved(saved))
    assert draw(restored) == draw(saved)


def forged(state):
    """Yield changes of a state: each number larger or negative, lists cut, and other types."""
    if isinstance(state, dict):
        yield {}
        yield {**state, "more": 1}
        for name, value in state.items():
            yield from ({**state, name: change} for change in forged(value))
    elif isinstance(state, list):
        yield state[:-1]
        yield [*state, 1]
        for place in (0, len(state) - 1):
            for change in forged(state[place]):
                yield [*state[:place], change, *state[place + 1 :]]
    elif isinstance(state, str):
        yield "PCG32"
    elif isinstance(state, int):
        yield from (-1, 2**200, str(state))
    yield None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "torch"])
def test_a_forged_state_is_refused_or_harmless(kind):
    refused = 0
    for state in forged(json.loads(_saved(KINDS[kind](1)))):
        generator = KINDS[kind](2)
        try:
            _restore(generator, json.dumps(state))
        except ValueError:
            refused += 1
        assert all(0 <= number < 1 for number in draw(generator))
    assert refused > 5


@pytest.mark.parametrize("position", [625, 10**9, -1])
@pytest.mark.parametrize("kind", ["RandomState", "MT19937", "Philox"])
def test_a_position_outside_the_buffer_is_refused(kind, position):
    state = json.loads(_saved(KINDS[kind](1)))
    if kind == "Philox":
        state["buffer_pos"] = position
    else:
        state["state"]["pos"] = position
    with pytest.raises(ValueError, match="is refused"):
        _restore(KINDS[kind](2), json.dumps(state))


@pytest.mark.parametrize("saved", ["text", 7, torch.zeros(3), None])
def test_a_state_of_another_type_is_refused(saved):
    for make in KINDS.values():
        with pytest.raises(ValueError, match="is refused"):
            _restore(make(1), saved)
