"""Accuracy of a detector under attack, and the cost of the attack."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics import Metric


class Attacked(Protocol):
    """The result of one attack, such as ``lightning_plugins.attacks.text.AttackResult``."""

    @property
    def status(self) -> str:
        """``skipped``, ``failed`` or ``succeeded``."""

    @property
    def queries(self) -> int:
        """The number of texts that were scored."""

    @property
    def words(self) -> int:
        """The number of words of the text."""

    @property
    def changed_words(self) -> int:
        """The number of changed words."""


class AttackScores(Metric):
    r"""Computes the scores of TextAttack from results of attacks, as a dictionary.

    Of :math:`N` texts, those that the detector misclassified before the attack are skipped:

    - ``original_accuracy`` (OA): :math:`(N - skipped) / N`;
    - ``accuracy_under_attack`` (AUA): :math:`failed / N`;
    - ``attack_success_rate`` (ASR): :math:`succeeded / (succeeded + failed) = 1 - AUA / OA`;
    - ``queries``: the mean number of queries over the attacked texts;
    - ``changed_words``: the mean share of changed words over the successful attacks.

    A mean over no texts is NaN.

    Source: Morris et al., TextAttack, arXiv 2005.05909.
    """

    full_state_update = False
    counts: Tensor
    queries: Tensor
    changed: Tensor

    def __init__(self) -> None:
        super().__init__()
        # skipped, failed, succeeded
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("queries", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("changed", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, results: Iterable[Attacked]) -> None:
        """Add results of attacks.

        Raises:
            ValueError: A status is not ``skipped``, ``failed`` or ``succeeded``.
        """
        for result in results:
            if result.status not in _STATUSES:
                raise ValueError(
                    f"status={result.status!r}: expected one of {', '.join(_STATUSES)}"
                )
            self.counts[_STATUSES.index(result.status)] += 1
            if result.status != "skipped":
                self.queries += result.queries
            if result.status == "succeeded":
                self.changed += result.changed_words / result.words

    def compute(self) -> dict[str, Tensor]:
        """Return the five scores as float64 scalars."""
        skipped, failed, succeeded = self.counts.double()
        attacked = failed + succeeded
        total = skipped + attacked
        return {
            "original_accuracy": attacked / total,
            "accuracy_under_attack": failed / total,
            "attack_success_rate": succeeded / attacked,
            "queries": self.queries / attacked,
            "changed_words": self.changed / succeeded,
        }


_STATUSES = ("skipped", "failed", "succeeded")
