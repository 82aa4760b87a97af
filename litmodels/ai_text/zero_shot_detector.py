"""Detection of AI-generated text with a causal language model that is not trained for it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lightning_plugins.nn.ai_text.zero_shot import (
    CRITERIA,
    LogisticCalibration,
    auroc,
    token_criteria,
)
from lightning_plugins.nn.module_state import evaluation_mode

# The criteria from which each baseline computes the probability.
BASELINES: dict[str, tuple[str, ...]] = {
    "log_likelihood": ("log_likelihood",),
    "rank": ("rank",),
    "log_rank": ("log_rank",),
    "entropy": ("entropy",),
    "gltr": ("gltr_10", "gltr_100", "gltr_1000", "gltr_rest"),
    "fast_detect_gpt": ("fast_detect_gpt",),
    "lrr": ("lrr",),
    "binoculars": ("binoculars",),
}
_FOLDS = 5


class ZeroShotDetector:
    """Scores texts by a language model's probabilities, calibrated on a few labelled texts.

    One forward pass of each model computes all criteria. Which of them separates human and AI texts
    best depends on the models and the texts: with a scoring model of 135M parameters,
    Fast-DetectGPT was below the likelihood. Without ``baseline``, :meth:`fit` takes the baseline
    with the highest AUROC on held-out folds of its texts.

    Source: the metric-based baselines of arXiv 2406.01179 with logistic regression, Fast-DetectGPT,
    LRR and Binoculars. The formulas are those of
    :func:`lightning_plugins.nn.ai_text.zero_shot.token_criteria`.

    Args:
        network: A causal language model that maps int64 tokens ``(batch, length)`` to logits, as a
            tensor or as an object with ``logits``: our ``CausalLM``, or a model of transformers.
        encode: A function from a text to its tokens, such as the ``encode`` of a tokenizer of
            transformers, or ``lambda text: list(text.encode())`` for a model of bytes.
        baseline: ``log_likelihood``, ``rank``, ``log_rank``, ``entropy``, ``gltr``,
            ``fast_detect_gpt``, ``lrr`` or ``binoculars``; None to choose in :meth:`fit`.
        max_length: Tokens to read from each text, at least 2.
        batch_size: Texts per forward pass.
        reference: A second causal language model with the same tokens: the sampling model of
            Fast-DetectGPT, the observer of Binoculars, which requires it. None takes ``network``.

    Attributes:
        baseline: The baseline in use; None before :meth:`fit` has chosen.
        held_out_auroc: Mean AUROC on held-out folds by baseline, after a choice.

    Raises:
        ValueError: An argument is outside its range.

    Example::

        network = AutoModelForCausalLM.from_pretrained("gpt2")
        encode = AutoTokenizer.from_pretrained("gpt2").encode
        detector = ZeroShotDetector(network, encode)
        detector.fit(texts, labels)
        detector.score(["Was this written by a machine?"])
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        encode: Callable[[str], Sequence[int]],
        baseline: str | None = None,
        max_length: int = 512,
        batch_size: int = 8,
        reference: Callable[[Tensor], Any] | None = None,
    ) -> None:
        if baseline is not None and baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r}: expected one of {', '.join(BASELINES)}")
        if baseline == "binoculars" and reference is None:
            raise ValueError("reference=None: expected a second model for the baseline binoculars")
        if max_length < 2:
            raise ValueError(f"max_length={max_length}: expected at least 2")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.baseline = baseline
        self.held_out_auroc: dict[str, float] = {}
        self._choose = baseline is None
        self._reference = reference
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
        networks = [x for x in (self._network, self._reference) if x is not None]
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(evaluation_mode(network))
            for first in range(0, len(order), self._batch_size):
                places = order[first : first + self._batch_size]
                found[places] = self._of_batch([tokens[place] for place in places])
        return found

    def table(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return the criteria of each text by name; one forward pass computes all of them."""
        rows = self.criteria(texts).tolist()
        return [dict(zip(CRITERIA, row, strict=True)) for row in rows]

    def fit(self, texts: Sequence[str], labels: Sequence[int]) -> None:
        """Fit the calibration on labelled texts (0 human, 1 AI), and choose the baseline if asked.

        Raises:
            ValueError: All labels are equal, or a choice has fewer than five texts of a label.
        """
        found, targets = self.criteria(texts), torch.tensor(labels)
        if self._choose:
            self.held_out_auroc = self._compared(found, targets)
            self.baseline = max(self.held_out_auroc, key=self.held_out_auroc.__getitem__)
        self._calibration = LogisticCalibration(self._features(found), targets)

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probabilities that texts are written by AI.

        Raises:
            ValueError: :meth:`fit` was not called.
        """
        if self._calibration is None:
            raise ValueError("the detector is not calibrated: call fit with labelled texts first")
        return self._calibration(self._features(self.criteria(texts))).tolist()

    def _features(self, found: Tensor, baseline: str | None = None) -> Tensor:
        names = BASELINES[baseline or self.baseline or ""]
        return found[:, [CRITERIA.index(name) for name in names]]

    def _compared(self, found: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the mean AUROC on held-out folds, which have every fifth text of each label."""
        fold = torch.zeros(len(labels), dtype=torch.int64)
        for label in (0, 1):
            places = (labels == label).nonzero().squeeze(1)
            if len(places) < _FOLDS:
                raise ValueError(
                    f"baseline=None: {len(places)} texts have the label {label}, expected at least "
                    f"{_FOLDS} to choose a baseline; name one of {', '.join(BASELINES)}"
                )
            fold[places] = torch.arange(len(places)) % _FOLDS
        names = [x for x in BASELINES if x != "binoculars" or self._reference is not None]
        compared = {}
        for name in names:
            features, held = self._features(found, name), []
            for one in range(_FOLDS):
                apart = fold == one
                calibration = LogisticCalibration(features[~apart], labels[~apart])
                held.append(auroc(calibration(features[apart]), labels[apart]))
            compared[name] = sum(held) / _FOLDS
        return compared

    def _of_batch(self, tokens: list[list[int]]) -> Tensor:
        longest = max(len(ids) for ids in tokens)
        # Padding on the right does not affect a causal model, so its value does not matter.
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in tokens])
        lengths = torch.tensor([len(ids) for ids in tokens])
        mask = torch.arange(1, longest) < lengths.unsqueeze(1)
        device = _device_of(self._network)
        padded, mask = padded.to(device), mask.to(device)
        logits = _logits(self._network, padded[:, :-1])
        reference = None
        if self._reference is not None:
            inputs = padded[:, :-1].to(_device_of(self._reference))
            reference = _logits(self._reference, inputs).to(device)
        return token_criteria(logits, padded[:, 1:], mask, reference).cpu()


def _logits(network: Callable[[Tensor], Any], tokens: Tensor) -> Tensor:
    output = network(tokens)
    return output if isinstance(output, Tensor) else output.logits


def _device_of(network: Any) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
