"""What is left of a detector's accuracy under attack."""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torchmetrics import Metric


class Attacked(Protocol):
    """What became of one text; ``lightning_plugins.attacks.text.AttackResult`` is one."""

    @property
    def status(self) -> str:
        """``skipped``, ``failed`` or ``succeeded``."""

    @property
    def queries(self) -> int:
        """Texts that were scored."""

    @property
    def words(self) -> int:
        """Words of the text."""

    @property
    def changed_words(self) -> int:
        """Of them."""


class AttackScores(Metric):
    r"""The scores of TextAttack over results of attacks, as a dictionary.

    Of :math:`N` texts, skipped ones are those that the detector was wrong on before the attack:

    - ``original_accuracy`` (OA): :math:`(N - skipped) / N`;
    - ``accuracy_under_attack`` (AUA): :math:`failed / N`;
    - ``attack_success_rate`` (ASR): :math:`succeeded / (succeeded + failed) = 1 - AUA / OA`;
    - ``queries``: mean over the texts that were attacked;
    - ``changed_words``: mean share of the words that were changed, over the successes.

    A mean over nothing is not a number.

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
        """Take results of attacks.

        Raises:
            ValueError: a status that is none of ``skipped``, ``failed`` and ``succeeded``.
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
        """The five scores, float64 scalars."""
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
