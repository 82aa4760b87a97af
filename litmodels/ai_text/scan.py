"""What a detector says of a text, window by window."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_plugins.litmodels.ai_text.tokenization import Window

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
