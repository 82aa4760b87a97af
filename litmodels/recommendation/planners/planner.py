"""The base class of planners, their inputs, and the sessions of users."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.litmodels.recommendation.language.chat_model import Usage
from lightning_plugins.nn.recommendation import Catalogue, ItemNetwork
from lightning_plugins.nn.recommendation.item_network import NetworkName, padded


@dataclass(frozen=True)
class Knowledge:
    """The data and the network that all planners may use. It never contains an evaluator.

    Args:
        backbone: A trained next-item network in evaluation mode.
        catalogue: Titles, years and genres by item number.
        item_counts: Training interactions of each item, ``(num_items + 1,)``.
        text_vectors: A vector of unit length per item, ``(num_items + 1, words)``.
        sequences: Training items of each user in chronological order.
    """

    backbone: ItemNetwork
    catalogue: Catalogue
    item_counts: Tensor
    text_vectors: Tensor
    sequences: Sequence[Any] = ()


class Sessions:
    """A batch of users, each with a history, a target and the path so far.

    Args:
        histories: Item numbers of each user in chronological order.
        targets: Item number of each user's target.
        num_items: Number of items in the catalogue.
        length: Number of items of a path, without the target.
        candidates: Item numbers that may be recommended to each user; None means all.

    Attributes:
        taken: Each user's history, followed by the accepted items of the path.
        paths: The recommended items, accepted or not.
        accepted: Whether the user took each recommended item.
        is_reached: Whether the planner has preferred the target to all allowed items at any step.
        allowed: Which items may be recommended, bool ``(users, num_items + 1)``. Items of the
            history, items of the path, and the target are not allowed.
        step: Number of recommendations so far. A path has fewer items if none was left for it.
        users: Numbers of the users in the data, counted from 1; 0 for unknown users.
        problems: Why the planner's own plan for a user could not be used, or ``""``.
        profiles: What is known about each user besides the history, as text; ``""`` if nothing is.
        usage: Requests, tokens and cost of the language model for each user.
    """

    def __init__(
        self,
        histories: Sequence[Sequence[int]],
        targets: Sequence[int],
        num_items: int,
        length: int,
        candidates: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.taken = [list(history) for history in histories]
        self._known = [len(history) for history in histories]
        self.targets = torch.tensor(targets)
        self.paths: list[list[int]] = [[] for _ in targets]
        self.accepted: list[list[bool]] = [[] for _ in targets]
        self.is_reached = torch.zeros(len(targets), dtype=torch.bool)
        self.length = length
        self.allowed = torch.ones(len(targets), num_items + 1, dtype=torch.bool)
        if candidates is not None:
            self.allowed[:] = False
            for row, numbers in zip(self.allowed, candidates, strict=True):
                row[list(numbers)] = True
        self.allowed[:, 0] = False
        for row, history, target in zip(self.allowed, histories, targets, strict=True):
            row[[*history, target]] = False
        self.step = 0
        self.users = torch.zeros(len(targets), dtype=torch.int64)
        self.problems = [""] * len(targets)
        self.profiles = [""] * len(targets)
        self.usage = [Usage(0)] * len(targets)
        self._is_given = torch.zeros(len(targets), dtype=torch.bool)

    def history(self, user: int) -> list[int]:
        """Return the items that a user took before the path."""
        return self.taken[user][: self._known[user]]

    def last_taken(self) -> Tensor:
        """Return the latest item that each user took, int64 ``(users,)``; 0 if there is none."""
        return torch.tensor([items[-1] if items else 0 for items in self.taken])

    def states(self, network: ItemNetwork) -> Tensor:
        """Return the network's states ``(users, dim)`` after the items taken."""
        device = network.item_embedding.weight.device
        return network.state(padded(self.taken, network.max_length, device))

    def recommend(self, items: Tensor) -> None:
        """Append one allowed item to each path, or none where the item number is 0.

        Raises:
            ValueError: An item is not allowed, or 0 is given although an item is left.
        """
        users = torch.arange(len(items))
        is_left = self.allowed.any(dim=1)
        is_wrong = torch.where(is_left, ~self.allowed[users, items], items != 0)
        if is_wrong.any():
            user = int(is_wrong.nonzero()[0, 0])
            raise ValueError(f"item {int(items[user])} is not allowed on the path of user {user}")
        self.allowed[users, items] = False
        self.step += 1
        self._is_given = is_left
        for path, item in zip(self.paths, items.tolist(), strict=True):
            path += [item] if item else []

    def end(self, user: int) -> None:
        """End the path of a user."""
        self.allowed[user] = False

    def take(self, is_accepted: Tensor) -> None:
        """Record which users accepted the latest recommendation, bool ``(users,)``."""
        for user, is_taken in enumerate(is_accepted.tolist()):
            if not self._is_given[user]:
                continue
            self.accepted[user].append(is_taken)
            if is_taken:
                self.taken[user].append(self.paths[user][-1])


class Planner(ABC):
    """Chooses the next item of each path. Abstract: a subclass implements :meth:`preferences`.

    Attributes:
        report: Counts of events to print after planning, or None.
        needs: Network of an additional recommender that the planner uses, or None.
        checkpoint: Checkpoint of that recommender; if None, it is trained.
        network: The network of that recommender. The caller sets it before planning.
    """

    report: Counter[str] | None = None
    needs: NetworkName | None = None
    checkpoint: str | None = None
    network: ItemNetwork | None = None

    @abstractmethod
    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return a score per item, ``(users, num_items + 1)``; the highest is recommended next.

        Forbidden items may have any score, because the caller masks them. Items with minus infinity
        are recommended only if no other item is left.
        """

    def begin(self, seed: int) -> None:  # noqa: B027 - most planners are deterministic
        """Reset, with randomness from ``seed``."""

    def longest(self, length: int) -> int:
        """Return the maximum number of items of a path if ``length`` items are requested."""
        return length

    def next_items(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the allowed item with the highest score for each user, int64 ``(users,)``.

        The item of a user without an allowed item is 0. If the target has a higher score than every
        allowed item, ``sessions.is_reached`` is set.
        """
        scores = self.preferences(sessions, knowledge).cpu().nan_to_num(nan=-torch.inf)
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)
        target_score = scores.gather(1, sessions.targets[:, None])[:, 0]
        scores = scores.masked_fill(~sessions.allowed, -torch.inf)
        best, items = scores.max(dim=1)
        is_left = sessions.allowed.any(dim=1)
        sessions.is_reached |= (target_score > best) & is_left
        return items.masked_fill(~is_left, 0)


def best_allowed(scores: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Return a mask ``(users, num_items + 1)`` of the ``k`` best allowed items by score."""
    ranked = scores.masked_fill(~allowed, -torch.inf)
    chosen = ranked.topk(min(k, scores.shape[1]), dim=1).indices
    return torch.zeros_like(allowed).scatter(1, chosen, True) & allowed
