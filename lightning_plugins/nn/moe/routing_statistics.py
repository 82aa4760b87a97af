"""Load, losses and paths computed from routings."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_plugins.nn.moe.routing import Routing
from lightning_plugins.optional_packages import requires


def load_balancing_loss(routing: Routing) -> Tensor:
    """``E * sum_i f_i P_i``: 1 where load and probability are spread evenly, up to E.

    f_i is the share of assignments that go to expert i, P_i its mean probability under the softmax
    over all experts. The gradient flows through P alone.

    Source: Fedus et al., Switch Transformers, arXiv 2101.03961, equations 4 to 6; with ``top_k``
    assignments a token, shares are of all of them.
    """
    probabilities = routing.scores.softmax(dim=-1).mean(dim=0)
    return routing.num_experts * (expert_load(routing) * probabilities).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Mean squared logarithm of the sum of exponentiated scores; keeps scores small.

    Source: Zoph et al., ST-MoE, arXiv 2202.08906, equation 5.
    """
    return routing.scores.logsumexp(dim=-1).square().mean()


def expert_load(routing: Routing) -> Tensor:
    """Share of all assignments that each expert gets ``(num_experts,)``; sums to 1."""
    chosen = routing.experts.flatten()
    # Half precision could not count beyond 256.
    ones = torch.ones_like(chosen, dtype=routing.scores.dtype)
    load = torch.zeros(routing.num_experts, dtype=ones.dtype, device=ones.device)
    return load.scatter_add(0, chosen, ones) / chosen.numel()


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
    with requires("scipy", by="matching paths to regions", extra="report"):
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    _, path = paths.unique(dim=0, return_inverse=True)
    _, region = regions.unique(return_inverse=True)
    shape = (int(path.max()) + 1, int(region.max()) + 1)
    counts = torch.bincount(path * shape[1] + region, minlength=shape[0] * shape[1]).view(shape)
    rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    return float(counts[rows, columns].sum()) / len(regions)
