"""Models of users who accept or reject recommendations."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.litmodels.recommendation.planners.planner import Sessions
from lightning_plugins.nn.recommendation import ItemNetwork


class UserModel(Protocol):
    """Accepts or rejects each recommendation of a closed loop."""

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Return whether each user takes the recommended item, bool ``(users,)``.

        Args:
            sessions: The users, after the items were added to their paths.
            items: Recommended items, int64 ``(users,)``.
            network: An evaluator in evaluation mode, not the planner's network.
        """


class TakesEverything:
    """The open loop: the user accepts every recommendation."""

    def begin(self, seed: int) -> None:
        """Do nothing; this model is deterministic."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Return True for all users."""
        return torch.ones(len(items), dtype=torch.bool)


class TakesTheLikely:
    """Accepts an item if the evaluator ranks it among the first ``rank``, given the items taken.

    The ranking contains all items that the user has not taken.

    Args:
        rank: Lowest accepted rank; 1 is the best.

    Raises:
        ValueError: ``rank`` is below 1.
    """

    def __init__(self, rank: int = 20) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: expected at least 1")
        self.rank = rank

    def begin(self, seed: int) -> None:
        """Do nothing; this model is deterministic."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Return whether each item is ranked high enough, bool ``(users,)``."""
        logits = network.logits(sessions.states(network)).cpu()
        for row, taken in zip(logits, sessions.taken, strict=True):
            row[taken] = -torch.inf
        own = logits.gather(1, items[:, None])
        return (logits > own).sum(dim=1) < self.rank


class ClicksWhatItLikes:
    r"""Draws clicks of a user whose taste changes and whose boredom grows with every click.

    An item is taken with probability :math:`\sigma(10 (u^T v - b - 0.8))`. Here v is the unit
    vector of the item in the evaluator's embeddings, u is the taste, and b is the boredom. A click
    changes the taste to :math:`0.8 u + 0.2 v` and adds 0.1 to b. Before each recommendation, b
    decays to 0.8 b. The initial taste is the normalized mean of the history's vectors.

    Source: The simulator in the released code of Bi et al., arXiv 2403.07571, after RecSim (Ie et
    al., arXiv 1909.04847). There the item vectors are random; here they are the evaluator's.

    Args:
        threshold: Similarity at which a click has probability one half without boredom (0.8 above).
        steepness: Slope of the sigmoid (10 above).

    Raises:
        ValueError: ``steepness`` is not positive.
    """

    def __init__(self, threshold: float = 0.8, steepness: float = 10.0) -> None:
        if not steepness > 0:
            raise ValueError(f"steepness={steepness}: expected more than 0")
        self.threshold = threshold
        self.steepness = steepness

    def begin(self, seed: int) -> None:
        """Reset, with randomness from ``seed``."""
        self._generator = torch.Generator().manual_seed(seed)

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Draw the clicks, bool ``(users,)``."""
        chances = self.click_probabilities(sessions, items, network)
        return torch.rand(len(items), generator=self._generator) < chances

    def click_probabilities(
        self, sessions: Sessions, items: Tensor, network: ItemNetwork
    ) -> Tensor:
        """Return the probability above for each user, ``(users,)``."""
        vectors = normalize(network.item_embedding.weight.detach().cpu(), dim=1)
        tastes, boredoms = [], []
        for user in range(len(items)):
            taste = normalize(vectors[sessions.history(user)].sum(dim=0), dim=0)
            boredom = 0.0
            path = zip(sessions.paths[user], sessions.accepted[user], strict=False)
            for item, is_click in path:  # all but the current item
                boredom *= 0.8
                if is_click:
                    taste = 0.8 * taste + 0.2 * vectors[item]
                    boredom += 0.1
            tastes.append(taste)
            boredoms.append(0.8 * boredom)
        likeness = (torch.stack(tastes) * vectors[items]).sum(dim=1)
        drive = likeness - torch.tensor(boredoms) - self.threshold
        return torch.sigmoid(self.steepness * drive)
