import io
import random

import numpy as np
import torch

from lightning_plugins.nn.random_state import RandomState, seeded


def draw():
    return random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(()).item()


def test_restoring_repeats_the_draws():
    draw()  # leaves a Gaussian number cached in Python's and NumPy's generators
    state = RandomState.capture()
    first = draw()
    state.restore()
    assert draw() == first


def test_it_can_be_saved_and_loaded_as_plain_data():
    state = RandomState.capture()
    first = draw()
    file = io.BytesIO()
    torch.save(state.to_plain(), file)
    file.seek(0)
    RandomState.from_plain(torch.load(file, weights_only=True)).restore()
    assert draw() == first


def test_a_seeded_block_restores_the_generators():
    state = RandomState.capture()
    first = draw()
    state.restore()
    with seeded(5):
        one = draw()
    with seeded(5):
        assert draw() == one
    assert draw() == first
