"""The base class of next-item networks, and the conversion of item lists to its input."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from lightning_plugins.nn.recommendation.dropout import Dropout

NetworkName = Literal["sasrec", "gru4rec", "irn"]


class ItemNetwork(nn.Module):
    """Scores every item as a user's next one. Abstract: a subclass implements :meth:`encode`.

    Sequences are int64 item numbers ``(batch, length)`` in chronological order, padded with 0 at
    the end. The item embeddings are also the output weights. Training uses the full softmax at all
    positions, so scores are logits of probabilities.

    Args:
        num_items: Number of items. Items are numbered from 1.
        dim: Size of embeddings and states.
        max_length: Maximum length of a history. Only the latest items are used.
        dropout: Dropout probability, in [0, 1).

    Attributes:
        negatives: Number of sampled items for the loss; None uses the full softmax. Set it before
            training.

    Raises:
        ValueError: An argument is out of range.
    """

    negatives: int | None = None

    def __init__(self, num_items: int, dim: int, max_length: int, dropout: float) -> None:
        super().__init__()
        for name, value in {"num_items": num_items, "dim": dim, "max_length": max_length}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a probability in [0, 1)")
        self.num_items = num_items
        self.max_length = max_length
        self.item_embedding = nn.Embedding(num_items + 1, dim, padding_idx=0)
        nn.init.normal_(self.item_embedding.weight, std=0.02)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        self.dropout = Dropout(dropout)

    def encode(self, items: Tensor) -> Tensor:
        """Return states ``(batch, length, dim)``; each depends on its item and those before it."""
        raise NotImplementedError

    def state(self, items: Tensor) -> Tensor:
        """Return the state ``(batch, dim)`` after the last item of each sequence.

        Of longer sequences, only the latest ``max_length`` items are used.
        """
        items = latest(items, self.max_length)
        return last_states(self.encode(items), items)

    def logits(self, states: Tensor) -> Tensor:
        """Return logits ``(..., num_items + 1)`` of states ``(..., dim)``; padding has -inf."""
        return pad(states @ self.item_embedding.weight[1:].T, (1, 0), value=-torch.inf)

    def forward(self, items: Tensor) -> Tensor:
        """Return logits ``(batch, num_items + 1)`` of the item after the latest ``max_length``."""
        return self.logits(self.state(items))

    def loss(self, sequences: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats of each item, given the items before it.

        Args:
            sequences: Item numbers ``(batch, length + 1)``, with ``length`` at most ``max_length``.

        Raises:
            ValueError: The sequences are longer.
        """
        check_length(sequences, self.max_length)
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        return self._cross_entropy(self.encode(inputs), targets)

    def _cross_entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        is_target = targets > 0
        # Padding is removed before the product with all items, which dominates the cost.
        states, targets = states[is_target], targets[is_target]
        if self.negatives is not None and self.negatives < self.num_items - 1:
            return sampled_cross_entropy(states, targets, self.item_embedding, self.negatives)
        logits = states @ self.item_embedding.weight[1:].T
        return cross_entropy(logits, targets - 1)


def sampled_cross_entropy(
    states: Tensor, targets: Tensor, embedding: nn.Embedding, negatives: int
) -> Tensor:
    r"""Return an estimate of the mean cross-entropy from sampled items that all states share.

    The sum over the other items in the softmax is replaced by that over the sampled ones, scaled by
    the ratio of the counts: their logits are increased by :math:`\log((n - 1) / m)` for m samples
    of the n items other than the target. The expectation of the sum is exact, that of its logarithm
    is too low. Memory grows with ``states * negatives`` instead of ``states * num_items``.

    Source: sampled softmax with a uniform proposal, Jean et al., arXiv 1412.2007; one set of
    negatives for all positions as in Klenitskiy and Vasilev, arXiv 2309.07602.

    Args:
        states: States ``(positions, dim)``.
        targets: Item numbers ``(positions,)``.
        embedding: Item embeddings, number 0 is padding.
        negatives: Number of sampled items, without replacement.
    """
    num_items = embedding.num_embeddings - 1
    sampled = torch.randperm(num_items, device=states.device)[:negatives] + 1
    others = states @ embedding(sampled).T
    is_target = targets[:, None] == sampled
    counts = (negatives - is_target.sum(dim=1, keepdim=True)).clamp(min=1)
    others = others + ((num_items - 1) / counts).log()
    own = (states * embedding(targets)).sum(dim=1, keepdim=True)
    logits = torch.cat([own, others.masked_fill(is_target, -torch.inf)], dim=1)
    return cross_entropy(logits, torch.zeros_like(targets))


def check_length(sequences: Tensor, max_length: int) -> None:
    """Check that windows ``(batch, length + 1)`` predict at most ``max_length`` items.

    Raises:
        ValueError: The windows are longer.
    """
    length = sequences.shape[1] - 1
    if length > max_length:
        raise ValueError(
            f"windows of {length + 1} items: the network has max_length={max_length}, so a window "
            f"has at most {max_length + 1} items; use the same max_length for the data"
        )


def latest(items: Tensor, max_length: int) -> Tensor:
    """Return the latest ``max_length`` items of each row, int64 ``(batch, at most max_length)``.

    Args:
        items: Item numbers ``(batch, length)``, padded with 0 at the end.
        max_length: Maximum number of items of a row.
    """
    if items.shape[1] <= max_length:
        return items
    lengths = (items > 0).sum(dim=1, keepdim=True)
    places = torch.arange(max_length, device=items.device) + (lengths - max_length).clamp(min=0)
    return items.gather(1, places).masked_fill(places >= lengths, 0)


def last_states(states: Tensor, items: Tensor) -> Tensor:
    """Return the state ``(batch, dim)`` at the last item of each sequence.

    Args:
        states: States ``(batch, length, dim)``.
        items: Item numbers ``(batch, length)``, padded with 0 at the end.
    """
    last = (items > 0).sum(dim=1).clamp(min=1) - 1
    return states[torch.arange(len(items), device=items.device), last]


def padded(
    sequences: Sequence[Sequence[int]], max_length: int, device: torch.device | None = None
) -> Tensor:
    """Return the latest ``max_length`` items of each sequence, padded with 0 at the end.

    Returns:
        int64 ``(sequences, max_length)``.
    """
    rows = torch.zeros(len(sequences), max_length, dtype=torch.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        latest = sequence[-max_length:]
        row[: len(latest)] = torch.tensor(latest, dtype=torch.int64)
    return rows.to(device)


def unpadded(rows: Tensor) -> list[list[int]]:
    """Return the item numbers of each row, without zeros."""
    return [[item for item in row if item] for row in rows.tolist()]
