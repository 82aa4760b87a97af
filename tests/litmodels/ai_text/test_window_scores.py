"""The noise of a window's score depends on the seed, the draw and the tokens alone."""

from types import SimpleNamespace

import torch

from lightning_plugins.litmodels.ai_text.tokenization import Window
from lightning_plugins.litmodels.ai_text.window_scores import WindowScorer

TEXTS = [(1, 5, 6, 2), (1, 5, 7, 2), (1, 5, 2)]


class RecordingNetwork:
    """A network that records the noise of each window, by the window's tokens."""

    noise_dim = 3

    def __init__(self):
        self.recorded = {}

    def encode(self, input_ids, mask):
        return input_ids

    def classify(self, hidden, mask, epsilon):
        for ids, present, noise in zip(hidden, mask, epsilon, strict=True):
            key = tuple(ids[present.bool()].tolist())
            self.recorded.setdefault(key, []).append(noise[present.bool()])
        return SimpleNamespace(logits=torch.zeros(len(hidden), 2))


def noise_of(texts, draws=1, seed=0, batch_size=8):
    network = RecordingNetwork()
    windows = [Window(place, ids, 0, len(ids)) for place, ids in enumerate(texts)]
    WindowScorer(network, 0, batch_size, draws, seed)(windows, torch.device("cpu"))
    return {ids: torch.stack(drawn) for ids, drawn in network.recorded.items()}


def test_the_noise_differs_between_texts_draws_and_seeds():
    drawn = noise_of(TEXTS, draws=2)
    same_length, other = TEXTS[0], TEXTS[1]
    assert not torch.equal(drawn[same_length], drawn[other])
    assert not torch.equal(drawn[other][0], drawn[other][1])
    assert not torch.equal(noise_of(TEXTS, seed=1)[other], drawn[other][:1])


def test_the_noise_of_a_text_does_not_depend_on_its_batch():
    together = noise_of(TEXTS, draws=2)
    for ids in TEXTS:
        assert torch.equal(noise_of([ids], draws=2)[ids], together[ids])
        assert torch.equal(noise_of(TEXTS, draws=2, batch_size=1)[ids], together[ids])
