"""Area under the ROC curve, group by group."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc

_NAME_BYTES = 64


class GroupedAUROC(Metric):
    """AUROC of each group of samples, as a dictionary; groups of one class only are left out.

    Names travel between processes with the scores, so that no process has to know all groups; of
    long ones the first 64 bytes count.

    Args:
        against_all_negatives: compare the positives of a group with the negatives of all groups,
            where a negative has no group of its own, such as the generator of a human text.
    """

    full_state_update = False
    higher_is_better = True
    scores: list[Tensor]
    labels: list[Tensor]
    names: list[Tensor]

    def __init__(self, against_all_negatives: bool = False) -> None:
        super().__init__()
        self.against_all_negatives = against_all_negatives
        for state in ("scores", "labels", "names"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        """Take scores ``(n,)``, labels ``(n,)`` of 0 and 1, and the group of each.

        Raises:
            ValueError: another number of names than of scores.
        """
        if len(names) != len(scores):
            raise ValueError(f"names has {len(names)} entries: expected {len(scores)}")
        encoded = [name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0") for name in names]
        rows = torch.tensor([list(name) for name in encoded], dtype=torch.uint8)
        self.scores.append(scores)
        self.labels.append(labels)
        self.names.append(rows.view(-1, _NAME_BYTES).to(scores.device))

    def compute(self) -> dict[str, Tensor]:
        """Group -> AUROC, in the order of the names."""
        if not len(self.scores):
            return {}
        scores, labels, rows = map(_joined, (self.scores, self.labels, self.names))
        names = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows.tolist()]
        found = {}
        for name in sorted(set(names)):
            chosen = torch.tensor([other == name for other in names], device=scores.device)
            if self.against_all_negatives:
                chosen = (chosen & (labels == 1)) | (labels == 0)
            if 0 < labels[chosen].sum() < chosen.sum():
                found[name] = binary_auroc(scores[chosen], labels[chosen])
        return found


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    # A list until processes are synchronised, one tensor after it.
    return state if isinstance(state, Tensor) else torch.cat(state)
