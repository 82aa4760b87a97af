"""Scores of the windows of texts: their computation, and their report for a reader."""

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

from lightning_plugins.litmodels.ai_text.detection_metrics import FALSE_POSITIVE_RATES
from lightning_plugins.litmodels.ai_text.tokenization import Window
from lightning_plugins.nn.ai_text import DetectorNetwork
from lightning_plugins.reports.writer import write_text_atomically

_BAR_WIDTH = 20
_EXCERPT_WIDTH = 48
_NUM_PRINTED = 10


@dataclass(frozen=True)
class WindowScorer:
    """Computes the scores of windows in batches of similar length.

    The noise of a window depends on the seed, the draw and the window's tokens alone, so its score
    does not depend on the other windows. The noise enters after the encoder, which therefore reads
    each window once for any number of draws.

    Args:
        network: The network of a detector.
        pad_id: Id of the padding token.
        batch_size: Windows per forward pass.
        draws: Number of noise draws; 0 disables the noise.
        seed: Seed of the noise.
    """

    network: DetectorNetwork
    pad_id: int
    batch_size: int
    draws: int
    seed: int

    def __call__(self, windows: Sequence[Window], device: torch.device) -> Tensor:
        """Return probabilities of AI, float32 ``(max(draws, 1), windows)`` on the CPU."""
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
        generator = torch.Generator().manual_seed(seed_of(self.seed, draw, window.ids))
        return torch.randn(len(window.ids), noise_dim, generator=generator)


def padded(windows: Sequence[Window], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ``input_ids`` and ``attention_mask``, each ``(windows, longest)``."""
    longest = max(len(window.ids) for window in windows)
    ids = [[*window.ids, *[pad_id] * (longest - len(window.ids))] for window in windows]
    mask = [[1] * len(w.ids) + [0] * (longest - len(w.ids)) for w in windows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def mean_over_windows(scores: Tensor, windows: Sequence[Window], num_texts: int) -> Tensor:
    """Average scores of windows ``(draws, windows)`` to scores of texts ``(draws, texts)``.

    Each window is weighted by its number of tokens.
    """
    text_of_window = torch.tensor([window.text for window in windows])
    tokens = torch.tensor([float(len(window.ids)) for window in windows])
    total = torch.zeros(len(scores), num_texts).index_add_(1, text_of_window, scores * tokens)
    return total / torch.zeros(num_texts).index_add_(0, text_of_window, tokens)


def seed_of(*key: object) -> int:
    """Return a seed below 2**63 that depends on ``key`` alone, and is equal in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*key: object) -> random.Random:
    """Return a random generator that is seeded with ``key``."""
    return random.Random(seed_of(*key))


class ScannedWindow(NamedTuple):
    """The characters from ``start`` to ``end`` of a text, and their score.

    ``above`` is the lowest false positive rate of windows, 0.01 or 0.05, at which the window is AI;
    None if it is not, or if the detector was not validated.
    """

    start: int
    end: int
    score: float
    above: float | None = None


class Scan(NamedTuple):
    """A text with its score and the scores of its windows.

    Attributes:
        text: The text.
        score: Probability that AI wrote it.
        thresholds: Scores that at most 1 % and 5 % of the human validation texts exceeded.
        windows: Its windows, in the order of the text.
        id: The user's id of the text; None if there is none.
    """

    text: str
    score: float
    thresholds: tuple[float, float]
    windows: tuple[ScannedWindow, ...]
    id: str | None = None

    @property
    def verdict(self) -> str:
        """The result of comparing the score with the thresholds, in words."""
        if not math.isfinite(self.thresholds[1]):
            return "no threshold: the detector was not validated"
        for threshold, rate in zip(self.thresholds, ("1 %", "5 %"), strict=True):
            if self.score > threshold:
                return f"AI, at {rate} false positives (threshold {threshold:.3f})"
        return f"not AI, at 5 % false positives (threshold {self.thresholds[1]:.3f})"

    def as_record(self) -> dict[str, object]:
        """Return the scan without its text as plain data, for JSON."""
        return {
            **({} if self.id is None else {"id": self.id}),
            "score": self.score,
            "verdict": self.verdict,
            "thresholds": [x if math.isfinite(x) else None for x in self.thresholds],
            "windows": [window._asdict() for window in self.windows],
        }

    def __str__(self) -> str:
        """Return the verdict, and a line with a bar for each window."""
        name = "" if self.id in (None, "-") else f"{self.id}: "
        lines = [f"{name}score {self.score:.3f}: {self.verdict}"]
        for window in self.windows:
            bar = "█" * round(_BAR_WIDTH * window.score)
            excerpt = " ".join(self.text[window.start : window.end].split())
            if len(excerpt) > _EXCERPT_WIDTH:
                excerpt = excerpt[: _EXCERPT_WIDTH - 1] + "…"
            above = "" if window.above is None else f"{window.above:.0%}"
            lines.append(f"  {window.score:.3f} {above:2} {bar:<{_BAR_WIDTH}} {excerpt}")
        return "\n".join(lines)


def scans_of(
    texts: Sequence[str],
    scores: Sequence[float],
    windows: Sequence[Window],
    window_scores: Tensor,
    thresholds: Sequence[float],
    window_thresholds: Sequence[float],
) -> list[Scan]:
    """Return one scan per text.

    ``thresholds`` of texts and ``window_thresholds`` are those at 1 % and 5 % false positives.
    """
    scanned: list[list[ScannedWindow]] = [[] for _ in texts]
    for window, score in zip(windows, window_scores.tolist(), strict=True):
        rates = zip(window_thresholds, FALSE_POSITIVE_RATES, strict=True)
        above = next((rate for threshold, rate in rates if score > threshold), None)
        scanned[window.text].append(ScannedWindow(window.start, window.end, score, above))
    at_one_percent, at_five_percent = thresholds
    return [
        Scan(text, score, (at_one_percent, at_five_percent), tuple(of_text))
        for text, score, of_text in zip(texts, scores, scanned, strict=True)
    ]


class ScanWriter(BasePredictionWriter):
    """Prints the scans of ``predict``, and writes them to a folder, one JSON object per line.

    Each process writes its own file: rank 0 writes ``scans.jsonl``, rank 1 writes
    ``scans_1.jsonl``, and so on. Only the first ten scans are printed.

    Args:
        folder: Folder of the files, created if it does not exist. None writes no file.
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
        """Print and write the scans of this process."""
        scans = [scan for batch in predictions for scan in batch]
        print("\n".join(str(scan) for scan in scans[:_NUM_PRINTED]))
        if self.folder is None:
            return
        lines = [json.dumps(scan.as_record()) for scan in scans]
        rank = trainer.global_rank
        file = self.folder / (f"scans_{rank}.jsonl" if rank else "scans.jsonl")
        write_text_atomically(file, "".join(f"{line}\n" for line in lines))
        print(f"{len(lines)} scans in {file}")
