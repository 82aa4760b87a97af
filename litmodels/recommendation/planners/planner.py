"""What a planner knows, where its users stand, and what it answers."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.nn.recommendation import Catalogue, ItemNetwork
from lightning_plugins.nn.recommendation.item_network import NetworkName, padded


@dataclass(frozen=True)
class Knowledge:
    """What all planners may use; nothing of it is the evaluator's.

    Args:
        backbone: a trained next-item network, in evaluation mode.
        catalogue: titles, years and genres by item number.
        item_counts: interactions of each item in the training part, ``(num_items + 1,)``.
        text_vectors: of each item, unit length, ``(num_items + 1, words)``.
        sequences: item numbers that each user took in the training part, in the order of time.
    """

    backbone: ItemNetwork
    catalogue: Catalogue
    item_counts: Tensor
    text_vectors: Tensor
    sequences: Sequence[Any] = ()


class Sessions:
    """A batch of users, each on the way to a target.

    Args:
        histories: item numbers that each user took, in the order of time.
        targets: item number of each user's target.
        num_items: items of the catalogue.
        length: items of a path, the target not among them.

    Attributes:
        taken: histories and, after them, what was accepted of the paths.
        paths: what was recommended, accepted or not.
        accepted: whether the user took each of them.
        is_reached: whether a planner would have recommended the target by now, had it been allowed.
        allowed: what may be recommended, bool ``(users, num_items + 1)``: nothing of the history,
            nothing twice, and not the target.
    """

    def __init__(
        self,
        histories: Sequence[Sequence[int]],
        targets: Sequence[int],
        num_items: int,
        length: int,
    ) -> None:
        self.taken = [list(history) for history in histories]
        self._known = [len(history) for history in histories]
        self.targets = torch.tensor(targets)
        self.paths: list[list[int]] = [[] for _ in targets]
        self.accepted: list[list[bool]] = [[] for _ in targets]
        self.is_reached = torch.zeros(len(targets), dtype=torch.bool)
        self.length = length
        self.allowed = torch.ones(len(targets), num_items + 1, dtype=torch.bool)
        self.allowed[:, 0] = False
        for row, history, target in zip(self.allowed, histories, targets, strict=True):
            row[[*history, target]] = False

    @property
    def step(self) -> int:
        """Items recommended so far."""
        return len(self.paths[0])

    def history(self, user: int) -> list[int]:
        """What a user had taken before the path."""
        return self.taken[user][: self._known[user]]

    def last_taken(self) -> Tensor:
        """The latest item that each user took, int64 ``(users,)``."""
        return torch.tensor([items[-1] for items in self.taken])

    def states(self, network: ItemNetwork) -> Tensor:
        """The network's states ``(users, dim)`` after what was taken."""
        device = network.item_embedding.weight.device
        return network.state(padded(self.taken, network.max_length, device))

    def recommend(self, items: Tensor) -> None:
        """Put one allowed item at the end of each path.

        Raises:
            ValueError: an item that is not allowed.
        """
        users = torch.arange(len(items))
        if not self.allowed[users, items].all():
            user = int((~self.allowed[users, items]).nonzero()[0, 0])
            raise ValueError(f"item {int(items[user])} is not allowed on the path of user {user}")
        self.allowed[users, items] = False
        for path, item in zip(self.paths, items.tolist(), strict=True):
            path.append(item)

    def take(self, is_accepted: Tensor) -> None:
        """Let the users who accepted take what was recommended last; bool ``(users,)``."""
        for user, is_taken in enumerate(is_accepted.tolist()):
            self.accepted[user].append(is_taken)
            if is_taken:
                self.taken[user].append(self.paths[user][-1])


class Planner(ABC):
    """Chooses the next item of each path. Abstract: a leaf adds :meth:`preferences`.

    Attributes:
        report: what the planner counts about its own work and wants printed, or None.
        needs: kind of recommender that it plans with beside the backbone, or None.
        checkpoint: of that recommender; None has it trained.
        network: that recommender's network, put here by who runs the planner.
    """

    report: Counter[str] | None = None
    needs: NetworkName | None = None
    checkpoint: str | None = None
    network: ItemNetwork | None = None

    @abstractmethod
    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """How much each item is wanted next: ``(users, num_items + 1)``, more is better.

        Items that are not allowed may have any value: the caller leaves them out. Minus infinity
        is for items that come only after all others.
        """

    def begin(self, seed: int) -> None:  # noqa: B027 - most planners draw nothing
        """Start over, with randomness from ``seed``."""

    def next_items(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """The preferred item among those allowed for each user, int64 ``(users,)``.

        A target that would be preferred to all of them is noted as reached, and stays for the end.

        Raises:
            ValueError: nothing is allowed any more.
        """
        if not sessions.allowed.any(dim=1).all():
            raise ValueError("a user has seen every item: nothing is left to recommend")
        wanted = self.preferences(sessions, knowledge).cpu().nan_to_num(nan=-torch.inf)
        wanted = wanted.clamp(min=torch.finfo(wanted.dtype).min)
        wanted_target = wanted.gather(1, sessions.targets[:, None])[:, 0]
        wanted = wanted.masked_fill(~sessions.allowed, -torch.inf)
        best, items = wanted.max(dim=1)
        sessions.is_reached |= wanted_target > best
        return items


def best_allowed(scores: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Mask ``(users, num_items + 1)`` of the ``k`` allowed items with the highest scores."""
    ranked = scores.masked_fill(~allowed, -torch.inf)
    chosen = ranked.topk(min(k, scores.shape[1]), dim=1).indices
    return torch.zeros_like(allowed).scatter(1, chosen, True) & allowed
