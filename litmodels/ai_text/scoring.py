"""Probabilities that texts are written by AI, each as if it were asked alone."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_plugins.litmodels.ai_text.tokenization import Window
from lightning_plugins.nn.ai_text import DetectorNetwork


def padded(windows: Sequence[Window], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """``input_ids`` and ``attention_mask``, each ``(windows, longest)``."""
    longest = max(len(window.ids) for window in windows)
    ids = [[*window.ids, *[pad_id] * (longest - len(window.ids))] for window in windows]
    mask = [[1] * len(w.ids) + [0] * (longest - len(w.ids)) for w in windows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def stream_of(*key: object) -> int:
    """A seed below 2**63 that is a function of ``key``, the same in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def randomness_of(*key: object) -> random.Random:
    """A generator that is a function of ``key``."""
    return random.Random(stream_of(*key))


@dataclass(frozen=True)
class WindowScorer:
    """Scores windows in batches of similar length.

    The noise of a window is a function of (seed, draw, the window's tokens), so its score does not
    depend on the windows beside it. Noise comes behind the encoder, which reads a window once,
    however many draws there are.

    Args:
        network: that scores.
        pad_id: number of the padding token.
        batch_size: windows a forward pass.
        draws: of the noise; 0 is no noise.
        seed: of the noise.
    """

    network: DetectorNetwork
    pad_id: int
    batch_size: int
    draws: int
    seed: int

    def __call__(self, windows: Sequence[Window], device: torch.device) -> Tensor:
        """Probabilities of AI, float32 ``(draws, windows)`` on the CPU; without noise one row."""
        noise_dim = self.network.noise_dim
        draws = 1 if noise_dim is None else max(self.draws, 1)
        order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
        scores = torch.zeros(draws, len(windows))
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            batch = [windows[place] for place in places]
            input_ids, mask = padded(batch, self.pad_id, device)
            hidden = self.network.encode(input_ids, mask)
            for draw in range(draws):
                epsilon = None
                if noise_dim is not None and self.draws:
                    drawn = [self._noise(window, draw, noise_dim) for window in batch]
                    epsilon = torch.nn.utils.rnn.pad_sequence(drawn, batch_first=True).to(device)
                logits = self.network.classify(hidden, mask, epsilon).logits
                scores[draw, places] = logits.float().softmax(-1)[:, 1].cpu()
        return scores

    def _noise(self, window: Window, draw: int, noise_dim: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_of(self.seed, draw, window.ids))
        return torch.randn(len(window.ids), noise_dim, generator=generator)


def mean_over_windows(scores: Tensor, windows: Sequence[Window], num_texts: int) -> Tensor:
    """Scores ``(draws, texts)`` of those of windows ``(draws, windows)``, weighted by tokens."""
    of_text = torch.tensor([window.text for window in windows])
    tokens = torch.tensor([float(len(window.ids)) for window in windows])
    total = torch.zeros(len(scores), num_texts).index_add_(1, of_text, scores * tokens)
    return total / torch.zeros(num_texts).index_add_(0, of_text, tokens)
