"""Detection of AI-generated text with a causal language model that is not trained for it."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_plugins.inputs import parse_json, quoted
from lightning_plugins.nn.ai_text.length_calibration import LengthCalibration
from lightning_plugins.nn.ai_text.zero_shot import (
    CRITERIA,
    LogisticCalibration,
    auroc,
    token_criteria,
)
from lightning_plugins.nn.module_state import evaluation_mode
from lightning_plugins.reports.writer import write_text_atomically

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
    "npr": ("npr",),
    "dna_gpt": ("dna_gpt",),
}
# What each of these baselines requires besides the scoring model.
_REQUIRES = {"binoculars": "reference", "npr": "perturb", "dna_gpt": "regenerate"}
_LIKELIHOOD, _LOG_RANK = CRITERIA.index("log_likelihood"), CRITERIA.index("log_rank")
_FOLDS = 5


class CalibratedScore(NamedTuple):
    """The probability that AI wrote a text, and its interval.

    Attributes:
        probability: The probability.
        low: Lower end of the 90 % interval.
        high: Upper end.
        tokens: Tokens of the text that were read.
    """

    probability: float
    low: float
    high: float
    tokens: int


class ZeroShotDetector:
    """Scores texts by a language model's probabilities, calibrated on a few labelled texts.

    One forward pass of each model computes all criteria. Which of them separates human and AI texts
    best depends on the models and the texts: with a scoring model of 135M parameters,
    Fast-DetectGPT was below the likelihood. Without ``baseline``, :meth:`fit` takes the baseline
    with the highest AUROC on held-out folds of its texts. The probabilities have an interval that
    depends on the length of the text; :meth:`save` keeps the calibration beside the model.

    Two baselines need more texts than the given one. ``npr`` is the mean logarithm of the rank over
    perturbed texts, divided by that of the text (Su et al., DetectLLM, arXiv 2306.05540).
    ``dna_gpt`` is the mean log-likelihood of the second half of the words, given the first, minus
    that of regenerated second halves (Yang et al., DNA-GPT, arXiv 2305.17359, the white-box score,
    here per token).

    Source: the metric-based baselines of arXiv 2406.01179 with logistic regression, Fast-DetectGPT,
    LRR and Binoculars. The formulas are those of
    :func:`lightning_plugins.nn.ai_text.zero_shot.token_criteria`.

    Args:
        network: A causal language model that maps int64 tokens ``(batch, length)`` to logits, as a
            tensor or as an object with ``logits``: our ``CausalLM``, or a model of transformers.
        encode: A function from a text to its tokens, such as the ``encode`` of a tokenizer of
            transformers, or ``lambda text: list(text.encode())`` for a model of bytes.
        baseline: ``log_likelihood``, ``rank``, ``log_rank``, ``entropy``, ``gltr``,
            ``fast_detect_gpt``, ``lrr``, ``binoculars``, ``npr`` or ``dna_gpt``; None to choose in
            :meth:`fit`.
        max_length: Tokens to read from each text, at least 2.
        batch_size: Texts per forward pass.
        reference: A second causal language model with the same tokens: the sampling model of
            Fast-DetectGPT, the observer of Binoculars, which requires it. None takes ``network``.
        perturb: A function from a text to perturbed ones, for ``npr``. The paper fills masked spans
            with T5; ``lambda text: [corrupt("synonyms", text, 0.15, k) for k in range(10)]`` needs
            WordNet only.
        regenerate: A function from the first half of a text to continuations, for ``dna_gpt``, such
            as ``lambda text: model.continuations([text] * 10, 0.7, 60, seed=0)``.

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
        perturb: Callable[[str], Sequence[str]] | None = None,
        regenerate: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        if baseline is not None and baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r}: expected one of {', '.join(BASELINES)}")
        given = {"reference": reference, "perturb": perturb, "regenerate": regenerate}
        missing = _REQUIRES.get(baseline or "")
        if missing is not None and given[missing] is None:
            raise ValueError(f"{missing}=None: the baseline {baseline} requires it")
        if max_length < 2:
            raise ValueError(f"max_length={max_length}: expected at least 2")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        self.baseline = baseline
        self.held_out_auroc: dict[str, float] = {}
        self._choose = baseline is None
        self._available = {name for name, value in given.items() if value is not None}
        self._reference = reference
        self._perturb = perturb
        self._regenerate = regenerate
        self._network = network
        self._encode = encode
        self._max_length = max_length
        self._batch_size = batch_size
        self._calibration: LengthCalibration | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the criteria: ``CRITERIA``, and ``npr`` and ``dna_gpt`` if available."""
        more = {"perturb": "npr", "regenerate": "dna_gpt"}
        return (*CRITERIA, *(name for part, name in more.items() if part in self._available))

    def criteria(self, texts: Sequence[str]) -> Tensor:
        """Compute all criteria of texts, float32 ``(texts, len(names))`` on the CPU.

        A text of fewer than two tokens has no predicted token, and all its criteria are 0.
        """
        found = self._of_tokens(texts)
        columns = [found]
        if self._perturb is not None:
            perturbed = [self._perturb(text) for text in texts]
            ranks = self._means(perturbed, [0] * len(texts), _LOG_RANK)
            own = found[:, _LOG_RANK]
            columns.append(torch.where(own > 0, ranks / own, 0.0)[:, None])
        if self._regenerate is not None:
            halves = [_halves(text) for text in texts]
            starts = [len(self._encode(first)) for first, _ in halves]
            again = [
                [first + rest for rest in self._regenerate(first)] if second else []
                for first, second in halves
            ]
            own = self._of_tokens(texts, starts)[:, _LIKELIHOOD]
            columns.append((own - self._means(again, starts, _LIKELIHOOD))[:, None])
        return torch.cat(columns, dim=1)

    def _means(self, groups: Sequence[Sequence[str]], starts: list[int], column: int) -> Tensor:
        """Return the mean of a criterion over the texts of each group; 0 for an empty group."""
        texts = [text for group in groups for text in group]
        of_texts = [start for group, start in zip(groups, starts, strict=True) for _ in group]
        values = self._of_tokens(texts, of_texts)[:, column].split([len(x) for x in groups])
        return torch.stack([x.mean() if len(x) else torch.tensor(0.0) for x in values])

    @torch.no_grad()
    def _of_tokens(self, texts: Sequence[str], starts: list[int] | None = None) -> Tensor:
        """Return the criteria of the tokens from each start on, ``(texts, len(CRITERIA))``."""
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
                begins = [starts[place] for place in places] if starts else [0] * len(places)
                found[places] = self._of_batch([tokens[place] for place in places], begins)
        return found

    def table(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return the criteria of each text by name; one forward pass computes all of them."""
        rows = self.criteria(texts).tolist()
        return [dict(zip(self.names, row, strict=True)) for row in rows]

    def fit(self, texts: Sequence[str], labels: Sequence[int]) -> None:
        """Fit the calibration on labelled texts (0 human, 1 AI), and choose the baseline if asked.

        It is fitted by length, see
        :class:`~lightning_plugins.nn.ai_text.length_calibration.LengthCalibration`.

        Raises:
            ValueError: All labels are equal, or a choice has fewer than five texts of a label.
        """
        found, targets = self.criteria(texts), torch.tensor(labels)
        if self._choose:
            self.held_out_auroc = self._compared(found, targets)
            self.baseline = max(self.held_out_auroc, key=self.held_out_auroc.__getitem__)
        self._calibration = LengthCalibration(self._features(found), targets, self._lengths(texts))

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probabilities that texts are written by AI.

        Raises:
            ValueError: :meth:`fit` was not called.
        """
        return [one.probability for one in self.probabilities(texts)]

    def probabilities(self, texts: Sequence[str]) -> list[CalibratedScore]:
        """Return the probabilities that texts are written by AI, with intervals.

        Raises:
            ValueError: :meth:`fit` was not called.
        """
        calibration = self._calibrated()
        features, lengths = self._features(self.criteria(texts)), self._lengths(texts)
        found = calibration(features, lengths).tolist()
        return [
            CalibratedScore(probability, low, high, tokens)
            for (probability, low, high), tokens in zip(found, lengths.tolist(), strict=True)
        ]

    def save(self, path: str | Path) -> None:
        """Write the baseline and its calibration as JSON, to be kept beside the model.

        Raises:
            ValueError: :meth:`fit` was not called.
        """
        content = {
            "baseline": self.baseline,
            "max_length": self._max_length,
            "reference": self._reference is not None,
            "held_out_auroc": self.held_out_auroc,
            "calibration": self._calibrated().state(),
        }
        write_text_atomically(Path(path), json.dumps(content))

    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote; the networks have to be those of the calibration.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is no calibration, or one with another ``max_length``, or with a
                baseline or reference that this detector does not have.
        """
        content = parse_json(Path(path).read_text(encoding="utf-8"), str(path))
        try:
            baseline, auroc = str(content["baseline"]), dict(content["held_out_auroc"])
            settings = {"max_length": content["max_length"], "reference": content["reference"]}
            calibration = LengthCalibration.of_state(content["calibration"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not the calibration of a detector: {error}") from error
        own = {"max_length": self._max_length, "reference": self._reference is not None}
        if settings != own:
            raise ValueError(f"{path} is a calibration for {settings}: this detector has {own}")
        is_known = baseline in BASELINES and calibration.num_features == len(BASELINES[baseline])
        if not is_known or _REQUIRES.get(baseline) not in {None, *self._available}:
            raise ValueError(
                f"{path} is a calibration of {quoted(baseline)}, which is missing here"
            )
        self.baseline, self.held_out_auroc, self._calibration = baseline, auroc, calibration

    def _calibrated(self) -> LengthCalibration:
        if self._calibration is None:
            raise ValueError("the detector is not calibrated: call fit with labelled texts first")
        return self._calibration

    def _lengths(self, texts: Sequence[str]) -> Tensor:
        lengths = [min(len(self._encode(text)), self._max_length) for text in texts]
        return torch.tensor(lengths, dtype=torch.int64)

    def _features(self, found: Tensor, baseline: str | None = None) -> Tensor:
        names = BASELINES[baseline or self.baseline or ""]
        return found[:, [self.names.index(name) for name in names]]

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
        names = [x for x in BASELINES if {_REQUIRES.get(x)} - {None} <= self._available]
        compared = {}
        for name in names:
            features, held = self._features(found, name), []
            for one in range(_FOLDS):
                apart = fold == one
                calibration = LogisticCalibration(features[~apart], labels[~apart])
                held.append(auroc(calibration(features[apart]), labels[apart]))
            compared[name] = sum(held) / _FOLDS
        return compared

    def _of_batch(self, tokens: list[list[int]], starts: list[int]) -> Tensor:
        longest = max(len(ids) for ids in tokens)
        # Padding on the right does not affect a causal model, so its value does not matter.
        padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in tokens])
        lengths = torch.tensor([len(ids) for ids in tokens])
        places = torch.arange(1, longest)
        mask = (places < lengths.unsqueeze(1)) & (places >= torch.tensor(starts).unsqueeze(1))
        device = _device_of(self._network)
        padded, mask = padded.to(device), mask.to(device)
        logits = _logits(self._network, padded[:, :-1])
        reference = None
        if self._reference is not None:
            inputs = padded[:, :-1].to(_device_of(self._reference))
            reference = _logits(self._reference, inputs).to(device)
        return token_criteria(logits, padded[:, 1:], mask, reference).cpu()


def _halves(text: str) -> tuple[str, str]:
    """Split a text after half of its words; the white space belongs to the second part."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    end = ends[len(ends) // 2 - 1] if len(ends) > 1 else len(text)
    return text[:end], text[end:]


def _logits(network: Callable[[Tensor], Any], tokens: Tensor) -> Tensor:
    output = network(tokens)
    return output if isinstance(output, Tensor) else output.logits


def _device_of(network: Any) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
