"""Expert load, auxiliary losses and paths of routed tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_plugins.nn.moe.routing import Routing
from lightning_plugins.optional_packages import requires


def load_balancing_loss(routing: Routing, load: Tensor | None = None) -> Tensor:
    """Compute ``E * sum_i f_i P_i``: 1 if load and probability are uniform, at most E.

    f_i is the fraction of all assignments that go to expert i, P_i its mean probability under the
    gate's scores over all experts (:func:`probabilities`). Only P has a gradient.

    Source: Fedus et al., Switch Transformers, arXiv 2101.03961, equations 4 to 6, with ``top_k``
    assignments per token.

    Args:
        routing: Routing of the tokens.
        load: f of a larger batch that contains them, ``(num_experts,)``; None means their own.
    """
    load = expert_load(routing) if load is None else load
    mean = probabilities(routing).sum(dim=0) / max(len(routing.logits), 1)
    return routing.num_experts * (load * mean).sum()


def sequence_balancing_loss(routing: Routing, num_sequences: int) -> Tensor:
    """Compute the load-balancing loss within each sequence, and average it over the sequences.

    Source: DeepSeek-V3, arXiv 2412.19437, equations 17 to 20.

    Args:
        routing: Routing of the tokens of all sequences, one sequence after the other.
        num_sequences: Number of sequences of equal length.
    """
    scores = probabilities(routing).unflatten(0, (num_sequences, -1))
    chosen = routing.experts.unflatten(0, (num_sequences, -1)).flatten(1)
    load = torch.zeros_like(scores[:, 0]).scatter_add_(
        1, chosen, torch.ones_like(chosen, dtype=scores.dtype)
    )
    load = load / chosen.shape[1]
    return routing.num_experts * (load * scores.mean(dim=1)).sum(dim=-1).mean()


def probabilities(routing: Routing) -> Tensor:
    """Return the scores of all experts as a distribution, ``(tokens, num_experts)``.

    Gates score by a softmax or by sigmoids (DeepSeek-V3) or square roots of softplus (DeepSeek-V4),
    which are divided by their sum here. The kind is the one whose ratios are those of the weights
    that the gate gave.
    """
    scores = routing.scores
    kinds = [scores.softmax(dim=-1), scores.sigmoid(), (softplus(scores) + 1e-20).sqrt()]
    weights = routing.weights.to(scores.dtype)
    chosen = [kind.gather(1, routing.experts) for kind in kinds]
    if routing.experts.shape[1] > 1:  # a single weight has no ratio; its value may be the score
        weights, *chosen = (_normalized(part) for part in (weights, *chosen))
    errors = torch.stack([(part - weights).detach().abs().mean() for part in chosen])
    is_softmax = 0.5 * errors[0] <= errors[1:].min()
    other = torch.where(errors[1] <= errors[2], kinds[1], kinds[2])
    return torch.where(is_softmax, kinds[0], _normalized(other))


def _normalized(scores: Tensor) -> Tensor:
    return scores / scores.sum(dim=-1, keepdim=True).clamp(min=1e-20)


def router_z_loss(routing: Routing) -> Tensor:
    """Compute the mean squared log-sum-exp of the scores, a penalty on large scores.

    Source: Zoph et al., ST-MoE, arXiv 2202.08906, equation 5.
    """
    return routing.scores.logsumexp(dim=-1).square().sum() / max(len(routing.logits), 1)


def expert_load(routing: Routing) -> Tensor:
    """Compute the fraction of all assignments per expert ``(num_experts,)``; 0 without tokens."""
    chosen = routing.experts.flatten()
    # Half precision cannot count beyond 256.
    ones = torch.ones_like(chosen, dtype=routing.scores.dtype)
    load = torch.zeros(routing.num_experts, dtype=ones.dtype, device=ones.device)
    return load.scatter_add(0, chosen, ones) / max(chosen.numel(), 1)


def paths_of(routings: Sequence[Routing]) -> Tensor:
    """Return the first expert of each input in each layer, int64 ``(inputs, layers)``.

    Args:
        routings: Routings of the same inputs, one per layer.
    """
    return torch.stack([routing.experts[:, 0] for routing in routings], dim=1)


def num_unique_paths(paths: Tensor) -> int:
    """Count the distinct rows of ``paths`` ``(inputs, layers)``."""
    return len(paths.unique(dim=0))


def load_entropy(routing: Routing) -> Tensor:
    """Compute the entropy of the expert load relative to its maximum; 0 means collapse."""
    load = expert_load(routing)
    return torch.special.entr(load).sum() / torch.log(torch.tensor(float(len(load))))


def routing_accuracy(paths: Tensor, regions: Tensor) -> float:
    """Compute the fraction of inputs whose path is matched to their region.

    The one-to-one matching of paths and regions maximizes the fraction (Hungarian method). If there
    are more paths than regions, inputs on unmatched paths count as wrong.

    Args:
        paths: Paths, int64 ``(inputs, layers)``.
        regions: True piece of each input, int64 ``(inputs,)``.

    Raises:
        ImportError: scipy is missing.
    """
    with requires("scipy", by="matching paths to regions", extra="report"):
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    _, path = paths.unique(dim=0, return_inverse=True)
    _, region = regions.unique(return_inverse=True)
    shape = (int(path.max()) + 1, int(region.max()) + 1)
    counts = torch.bincount(path * shape[1] + region, minlength=shape[0] * shape[1]).view(shape)
    rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
    return float(counts[rows, columns].sum()) / len(regions)
