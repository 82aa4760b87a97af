"""Calibration of criteria to a probability with an interval, by the length of the text."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.nn.ai_text.zero_shot import LogisticCalibration

_GROUPS = 4
_LEAST_OF_A_LABEL = 25
_RESAMPLES = 100
_INTERVAL = (0.05, 0.95)


class LengthCalibration:
    """A logistic calibration for each range of lengths, with an interval.

    A criterion of few tokens varies more than one of many, so the same value is weaker evidence in
    a short text. The texts are divided at quartiles of their lengths; ranges with fewer than 25
    texts of a label are joined. The interval of a probability is its 5 % to 95 % quantile over 100
    calibrations on texts that are drawn with replacement from its range (the bootstrap). It states
    what the number of texts leaves open, not whether a new text is like them.

    Args:
        features: ``(texts, features)``.
        labels: ``(texts,)`` of 0 and 1, each at least once.
        lengths: Tokens of each text, int64 ``(texts,)``.
        seed: Seed of the resamples.

    Attributes:
        ranges: The longest text of each range but the last, in tokens.

    Raises:
        ValueError: All labels are equal, or a feature is not finite.
    """

    def __init__(self, features: Tensor, labels: Tensor, lengths: Tensor, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ranges = _bounds(labels, lengths)
        place = self._range_of(lengths)
        self._fits = [
            _fits(features[place == one], labels[place == one], generator)
            for one in range(len(self.ranges) + 1)
        ]

    def __call__(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the probability of AI and its interval, float32 ``(texts, 3)``."""
        found = torch.zeros(len(features), 3)
        place = self._range_of(lengths)
        for one, (whole, *resampled) in enumerate(self._fits):
            chosen = place == one
            if not chosen.any():
                continue
            own = features[chosen]
            draws = torch.stack([fit(own) for fit in resampled])
            low, high = draws.quantile(torch.tensor(_INTERVAL), dim=0)
            middle = whole(own)
            columns = [middle, torch.minimum(low, middle), torch.maximum(high, middle)]
            found[chosen] = torch.stack(columns, dim=1)
        return found

    @property
    def num_features(self) -> int:
        """Number of features of a text."""
        return self._fits[0][0].num_features

    def state(self) -> dict[str, Any]:
        """Return the fitted numbers as plain data, for JSON."""
        return {"ranges": self.ranges, "fits": [[x.state() for x in fits] for fits in self._fits]}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> "LengthCalibration":
        """Return the calibration of a :meth:`state`.

        Raises:
            ValueError: The state is not one of a calibration.
        """
        found = cls.__new__(cls)
        try:
            found.ranges = [int(bound) for bound in state["ranges"]]
            found._fits = [
                [LogisticCalibration.of_state(x) for x in fits] for fits in state["fits"]
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a calibration: {error}") from error
        if len(found._fits) != len(found.ranges) + 1 or any(len(x) < 2 for x in found._fits):
            raise ValueError("not the state of a calibration: expected a fit for each range")
        return found

    def _range_of(self, lengths: Tensor) -> Tensor:
        return torch.bucketize(lengths, torch.tensor(self.ranges, dtype=torch.int64))


def _bounds(labels: Tensor, lengths: Tensor) -> list[int]:
    """Return upper bounds of all ranges but the last, each range with enough texts."""
    shares = torch.arange(1, _GROUPS) / _GROUPS
    bounds: list[int] = []
    low = -1
    for bound in lengths.double().quantile(shares.double()).long().unique().tolist():
        inside, above = labels[(lengths > low) & (lengths <= bound)], labels[lengths > bound]
        counts = torch.stack([x.long().bincount(minlength=2)[:2] for x in (inside, above)])
        if (counts >= _LEAST_OF_A_LABEL).all():
            bounds.append(bound)
            low = bound
    return bounds


def _fits(
    features: Tensor, labels: Tensor, generator: torch.Generator
) -> list[LogisticCalibration]:
    """Return the calibration of all texts, then those of texts drawn within each label."""
    fits = [LogisticCalibration(features, labels)]
    of_labels = [(labels == label).nonzero().squeeze(1) for label in (0, 1)]
    for _ in range(_RESAMPLES):
        drawn = [x[torch.randint(len(x), (len(x),), generator=generator)] for x in of_labels]
        places = torch.cat(drawn)
        fits.append(LogisticCalibration(features[places], labels[places]))
    return fits
