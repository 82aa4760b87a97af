"""Probabilities that texts are written by AI, each as if it were asked alone."""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
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


_BAR = 20
_EXCERPT = 48


class ScannedWindow(NamedTuple):
    """A stretch of a text: the characters from ``start`` to ``end``, and its score."""

    start: int
    end: int
    score: float


class Scan(NamedTuple):
    """A text and what a detector says of it.

    Attributes:
        text: as it was given.
        score: probability that AI wrote it.
        thresholds: scores above which at most 1 % and 5 % of human texts lay.
        windows: in the order of the text.
    """

    text: str
    score: float
    thresholds: tuple[float, float]
    windows: tuple[ScannedWindow, ...]

    @property
    def verdict(self) -> str:
        """What the thresholds make of the score, in words."""
        if not math.isfinite(self.thresholds[1]):
            return "no threshold: the detector saw no validation"
        for threshold, rate in zip(self.thresholds, ("1 %", "5 %"), strict=True):
            if self.score > threshold:
                return f"AI, at {rate} false positives (threshold {threshold:.3f})"
        return f"not AI, at 5 % false positives (threshold {self.thresholds[1]:.3f})"

    def as_record(self) -> dict[str, object]:
        """Plain data, without the text."""
        return {
            "score": self.score,
            "verdict": self.verdict,
            "thresholds": [x if math.isfinite(x) else None for x in self.thresholds],
            "windows": [{"start": w.start, "end": w.end, "score": w.score} for w in self.windows],
        }

    def __str__(self) -> str:
        """The verdict, and a line with a bar for each window."""
        lines = [f"score {self.score:.3f}: {self.verdict}"]
        for window in self.windows:
            bar = "█" * round(_BAR * window.score)
            excerpt = " ".join(self.text[window.start : window.end].split())
            if len(excerpt) > _EXCERPT:
                excerpt = excerpt[: _EXCERPT - 1] + "…"
            lines.append(f"  {window.score:.3f} {bar:<{_BAR}} {excerpt}")
        return "\n".join(lines)


def scans_of(
    texts: Sequence[str],
    scores: Sequence[float],
    windows: Sequence[Window],
    scores_of_windows: Tensor,
    thresholds: Sequence[float],
) -> list[Scan]:
    """One scan a text; ``thresholds`` are those at 1 % and 5 %."""
    found: list[list[ScannedWindow]] = [[] for _ in texts]
    for window, score in zip(windows, scores_of_windows.tolist(), strict=True):
        found[window.text].append(ScannedWindow(window.start, window.end, score))
    one, five = thresholds
    return [
        Scan(text, score, (one, five), tuple(of_text))
        for text, score, of_text in zip(texts, scores, found, strict=True)
    ]


_SHOWN = 10


class ScanWriter(BasePredictionWriter):
    """Shows the scans of ``predict``, and writes them if a folder is given, a line of JSON each.

    Each process writes a file of its own: ``scans.jsonl``, and from the second rank on
    ``scans_1.jsonl`` and so on. Of many texts the first ten are shown.

    Args:
        folder: where the files go; made if it is not there. None writes none.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.folder = Path(folder) if folder else None

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Show and write the scans of this process."""
        scans = [scan for batch in predictions for scan in batch]
        print("\n".join(str(scan) for scan in scans[:_SHOWN]))
        if self.folder is None:
            return
        lines = [json.dumps(scan.as_record()) for scan in scans]
        self.folder.mkdir(parents=True, exist_ok=True)
        rank = trainer.global_rank
        file = self.folder / (f"scans_{rank}.jsonl" if rank else "scans.jsonl")
        partial = file.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(file)
        print(f"{len(lines)} scans in {file}")
