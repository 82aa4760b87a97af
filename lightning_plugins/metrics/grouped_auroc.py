"""Area under the ROC curve of each group."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

_NAME_BYTES = 64


class GroupedAUROC(Metric):
    """AUROC of each group of samples as a dictionary, without groups that contain only one class.

    The names of the groups are synchronised with the scores, so no process has to know all groups.
    Names are truncated to 64 bytes.

    Args:
        against_all_negatives: Compare the positives of a group with the negatives of all groups,
            for groups that only positives have, such as the generator of a text.
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
        """Add scores ``(n,)``, labels ``(n,)`` of 0 and 1, and the names of their groups.

        Raises:
            ValueError: The numbers of names and scores differ.
        """
        if len(names) != len(scores):
            raise ValueError(f"names has {len(names)} entries: expected {len(scores)}")
        encoded = [name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0") for name in names]
        rows = torch.tensor([list(name) for name in encoded], dtype=torch.uint8)
        self.scores.append(scores)
        self.labels.append(labels)
        self.names.append(rows.view(-1, _NAME_BYTES).to(scores.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the AUROC by group, in the order of the names."""
        if not len(self.scores):
            return {}
        scores, labels, rows = map(dim_zero_cat, (self.scores, self.labels, self.names))
        names = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows.tolist()]
        found = {}
        for name in sorted(set(names)):
            chosen = torch.tensor([other == name for other in names], device=scores.device)
            if self.against_all_negatives:
                chosen = (chosen & (labels == 1)) | (labels == 0)
            if 0 < labels[chosen].sum() < chosen.sum():
                found[name] = binary_auroc(scores[chosen], labels[chosen])
        return found
