"""Detection of AI-generated text with a causal language model that is not trained for it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_plugins.nn.ai_text.zero_shot import CRITERIA, LogisticCalibration, token_criteria
from lightning_plugins.nn.module_state import evaluation_mode

# The criteria from which each baseline computes the probability.
BASELINES: dict[str, tuple[str, ...]] = {
    "log_likelihood": ("log_likelihood",),
    "rank": ("rank",),
    "log_rank": ("log_rank",),
    "entropy": ("entropy",),
    "gltr": ("gltr_10", "gltr_100", "gltr_1000", "gltr_rest"),
    "fast_detect_gpt": ("fast_detect_gpt",),
}


class ZeroShotDetector:
    """Scores texts by a language model's probabilities, calibrated on a few labelled texts.

    Source: the metric-based baselines of arXiv 2406.01179 with logistic regression, and
    Fast-DetectGPT. The formulas are those of
    :func:`lightning_plugins.nn.ai_text.zero_shot.token_criteria`.

    Args:
        network: A causal language model that maps int64 tokens ``(batch, length)`` to logits, as a
            tensor or as an object with ``logits``: our ``CausalLM``, or a model of transformers.
        encode: A function from a text to its tokens, such as the ``encode`` of a tokenizer of
            transformers, or ``lambda text: list(text.encode())`` for a model of bytes.
        baseline: ``log_likelihood``, ``rank``, ``log_rank``, ``entropy``, ``gltr`` or
            ``fast_detect_gpt``.
        max_length: Tokens to read from each text, at least 2.
        batch_size: Texts per forward pass.

    Raises:
        ValueError: An argument is outside its range.

    Example::

        network = AutoModelForCausalLM.from_pretrained("gpt2")
        encode = AutoTokenizer.from_pretrained("gpt2").encode
        detector = ZeroShotDetector(network, encode, "fast_detect_gpt")
        detector.fit(texts, labels)
        detector.score(["Was this written by a machine?"])
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        encode: Callable[[str], Sequence[int]],
        baseline: str = "fast_detect_gpt",
        max_length: int = 512,
        batch_size: int = 8,
    ) -> None:
        if baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r}: expected one of {', '.join(BASELINES)}")
        if max_length < 2:
            raise ValueError(f"max_length={max_length}: expected at least 2")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.baseline = baseline
        self._network = network
        self._encode = encode
        self._max_length = max_length
        self._batch_size = batch_size
        self._calibration: LogisticCalibration | None = None

    @torch.no_grad()
    def criteria(self, texts: Sequence[str]) -> Tensor:
        """Compute all criteria of texts, float32 ``(texts, len(CRITERIA))`` on the CPU.

        A text of fewer than two tokens has no predicted token, and all its criteria are 0.
        """
        tokens = [list(self._encode(text))[: self._max_length] for text in texts]
        found = torch.zeros(len(texts), len(CRITERIA))
        # Batches of similar lengths need little padding.
        order = sorted(
            (place for place, ids in enumerate(tokens) if len(ids) > 1),
            key=lambda place: len(tokens[place]),
        )
        with evaluation_mode(self._network):
            for first in range(0, len(order), self._batch_size):
                places = order[first : first + self._batch_size]
                found[places] = self._of_batch([tokens[place] for place in places])
        return found

    def fit(self, texts: Sequence[str], labels: Sequence[int]) -> None:
        """Fit the calibration on labelled texts (0 human, 1 AI).

        Raises:
            ValueError: All labels are equal.
        """
        self._calibration = LogisticCalibration(self._features(texts), torch.tensor(labels))

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probabilities that texts are written by AI.

        Raises:
            ValueError: :meth:`fit` was not called.
        """
        if self._calibration is None:
            raise ValueError("the detector is not calibrated: call fit with labelled texts first")
        return self._calibration(self._features(texts)).tolist()

    def _features(self, texts: Sequence[str]) -> Tensor:
        columns = [CRITERIA.index(name) for name in BASELINES[self.baseline]]
        return self.criteria(texts)[:, columns]

    def _of_batch(self, tokens: list[list[int]]) -> Tensor:
        longest = max(len(ids) for ids in tokens)
        # Padding on the right does not affect a causal model, so its value does not matter.
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in tokens])
        lengths = torch.tensor([len(ids) for ids in tokens])
        mask = torch.arange(1, longest) < lengths.unsqueeze(1)
        device = _device_of(self._network)
        padded, mask = padded.to(device), mask.to(device)
        output = self._network(padded[:, :-1])
        logits = output if isinstance(output, Tensor) else output.logits
        return token_criteria(logits, padded[:, 1:], mask).cpu()


def _device_of(network: Any) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
