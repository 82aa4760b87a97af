"""The training loss of language models."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.language_model.network import Batch


def is_masked(batch: Batch) -> bool:
    """Whether some tokens of the batch are not targets."""
    return not isinstance(batch, Tensor)


def mean_cross_entropy(logits: Tensor, targets: Tensor, is_masked: bool) -> Tensor:
    """Compute the mean cross-entropy in nats over the targets; 0 without any target."""
    logits, targets = logits.float().flatten(0, 1), targets.flatten()
    if not is_masked:
        return cross_entropy(logits, targets)
    # A batch without any target has the loss 0; the mean of torch would be NaN.
    return cross_entropy(logits, targets, reduction="sum") / (targets >= 0).sum().clamp(min=1)


@torch.no_grad()
def max_load(router_logits: tuple[Tensor, ...]) -> Tensor:
    """Compute the largest fraction of first choices in any layer, times the number of experts."""
    loads = []
    for logits in router_logits:
        chosen = logits.argmax(dim=-1)
        counts = torch.zeros(logits.shape[-1], device=logits.device)
        counts.scatter_add_(
            0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=counts.dtype)
        )
        loads.append(counts.max() / chosen.numel() * logits.shape[-1])
    return torch.stack(loads).max()
