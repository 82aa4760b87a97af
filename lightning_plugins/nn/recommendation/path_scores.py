"""Scores of recommendation paths and their targets by a next-item network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_plugins.nn.recommendation.item_network import ItemNetwork, padded

Paths = Sequence[Sequence[int]]


@dataclass(frozen=True)
class PathScores:
    """Scores of paths p between histories h and targets t, tensors ``(paths,)``.

    Args:
        log_prob_before: log P(t | h) in nats.
        log_prob_after: log P(t | h + p) in nats.
        rank_before: Rank of t after h among the items of neither h nor p; 1 is best.
        rank_after: Rank of t after h + p among the same items. A path therefore gains no ranks
            merely by recommending the items that were ranked before the target.
        step_log_prob: Mean over the path of log P(item | h + the path before the item) in nats;
            NaN for an empty path.
        curves: log P(t | h + the first items of p) for 0, 1, … items, one list per path.
    """

    log_prob_before: Tensor
    log_prob_after: Tensor
    rank_before: Tensor
    rank_after: Tensor
    step_log_prob: Tensor
    curves: list[list[float]]


@torch.no_grad()
def path_scores(
    network: ItemNetwork, histories: Paths, paths: Paths, targets: Sequence[int]
) -> PathScores:
    """Score paths with a network, which should not be the one that planned them.

    Probabilities are over all items. The network sees the latest ``max_length`` items at each step.

    Args:
        network: A network in evaluation mode, trained with the full softmax so that its scores are
            logits.
        histories: Item numbers of each user in chronological order.
        paths: Item numbers recommended after each history, without the target.
        targets: Item number of each target.
    """
    device = network.item_embedding.weight.device
    target = torch.tensor(targets, device=device)
    used = torch.zeros(len(targets), network.num_items + 1, dtype=torch.bool, device=device)
    for row, history, path in zip(used, histories, paths, strict=True):
        row[[*history, *path]] = True
    step_total = torch.zeros_like(target, dtype=network.item_embedding.weight.dtype)
    first = last = torch.empty(0)
    longest = max(map(len, paths), default=0)
    at_step = []
    for step in range(longest + 1):
        so_far = [[*h, *p[:step]] for h, p in zip(histories, paths, strict=True)]
        last = network(padded(so_far, network.max_length, device)).log_softmax(dim=1)
        at_step.append(last.gather(1, target[:, None])[:, 0])
        if step == 0:
            first = last
        if step < longest:
            items = torch.tensor([p[step] if step < len(p) else 0 for p in paths], device=device)
            values = last.gather(1, items[:, None])[:, 0]
            step_total += torch.where(items > 0, values, 0.0)
    lengths = torch.tensor([len(path) for path in paths], device=device)
    curves = torch.stack(at_step, dim=1).tolist()
    return PathScores(
        first.gather(1, target[:, None])[:, 0],
        last.gather(1, target[:, None])[:, 0],
        _rank(first, target, used),
        _rank(last, target, used),
        step_total / lengths,
        [curve[: len(path) + 1] for curve, path in zip(curves, paths, strict=True)],
    )


def _rank(scores: Tensor, target: Tensor, used: Tensor) -> Tensor:
    own = scores.gather(1, target[:, None])
    return 1 + ((scores > own) & ~used).sum(dim=1)
