"""The ways that inputs take through the gates of a network, and how they fit known regions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.nn.moe.losses import expert_load
from lightning_plugins.nn.moe.routing import Routing


def paths_of(routings: Sequence[Routing]) -> Tensor:
    """The first expert of each input in each layer, int64 ``(inputs, layers)``.

    Args:
        routings: of the same inputs, one a layer.
    """
    return torch.stack([routing.experts[:, 0] for routing in routings], dim=1)


def num_unique_paths(paths: Tensor) -> int:
    """How many different rows ``paths`` ``(inputs, layers)`` has."""
    return len(paths.unique(dim=0))


def load_entropy(routing: Routing) -> Tensor:
    """Entropy of the load over experts, as a share of its largest value: 0 is collapse."""
    load = expert_load(routing)
    return torch.special.entr(load).sum() / torch.log(torch.tensor(float(len(load))))


def routing_accuracy(paths: Tensor, regions: Tensor) -> float:
    """Share of inputs whose path is the one that was matched to their region.

    Each path is matched to at most one region and each region to at most one path, so that the
    share is largest (Hungarian method). Where there are more paths than regions, what takes an
    unmatched path counts as wrong.

    Args:
        paths: int64 ``(inputs, layers)``.
        regions: the true piece of each input, int64 ``(inputs,)``.

    Raises:
        ImportError: without scipy.
    """
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            'matching paths to regions needs scipy: pip install "lightning-plugins[report]"'
        ) from error
    _, path = paths.unique(dim=0, return_inverse=True)
    _, region = regions.unique(return_inverse=True)
    shape = (int(path.max()) + 1, int(region.max()) + 1)
    counts = torch.bincount(path * shape[1] + region, minlength=shape[0] * shape[1]).view(shape)
    rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    return float(counts[rows, columns].sum()) / len(regions)
