"""Users who take what is recommended to them, or do not."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.litmodels.recommendation.planners.planner import Sessions
from lightning_plugins.nn.recommendation import ItemNetwork


class UserModel(Protocol):
    """Decides on each recommendation of a closed loop.

    ``network`` is an evaluator in evaluation mode, which is not the planner's.
    """

    def begin(self, seed: int) -> None:
        """Start over, with randomness from ``seed``."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Whether each user takes the item that is offered now: bool ``(users,)``."""


class TakesEverything:
    """The open loop: the plan is followed whatever it is."""

    def begin(self, seed: int) -> None:
        """Nothing is drawn."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """True for all."""
        return torch.ones(len(items), dtype=torch.bool)


class TakesTheLikely:
    """Takes an item that the evaluator ranks among its first ``rank`` after what was taken.

    Ranked are all items that the user has not taken.

    Args:
        rank: last place that is still taken, 1 is the best.

    Raises:
        ValueError: ``rank`` below 1.
    """

    def __init__(self, rank: int = 20) -> None:
        if rank < 1:
            raise ValueError(f"rank={rank}: expected at least 1")
        self.rank = rank

    def begin(self, seed: int) -> None:
        """Nothing is drawn."""

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Whether each item is likely enough: bool ``(users,)``."""
        logits = network.logits(sessions.states(network)).cpu()
        for row, taken in zip(logits, sessions.taken, strict=True):
            row[taken] = -torch.inf
        own = logits.gather(1, items[:, None])
        return (logits > own).sum(dim=1) < self.rank


class ClicksWhatItLikes:
    r"""A user whose taste moves with every click and who tires of clicking.

    With v the unit vector of an item in the evaluator's embeddings, and u the taste, an item is
    taken with probability :math:`\sigma(10 (u^T v - b - 0.8))`. A click makes the taste
    :math:`0.8 u + 0.2 v` and the boredom b larger by 0.1; every offer first decays b to 0.8 b. The
    taste starts as the mean of the history's vectors, made a unit vector.

    Source: the simulator in the released code of Bi et al., arXiv 2403.07571, after RecSim (Ie et
    al., arXiv 1909.04847); item vectors are drawn there and the evaluator's here.

    Args:
        threshold: likeness at which a click has probability one half, the 0.8 above.
        steepness: the 10 above.

    Raises:
        ValueError: ``steepness`` that is not positive.
    """

    def __init__(self, threshold: float = 0.8, steepness: float = 10.0) -> None:
        if not steepness > 0:
            raise ValueError(f"steepness={steepness}: expected more than 0")
        self.threshold = threshold
        self.steepness = steepness

    def begin(self, seed: int) -> None:
        """Start over, with randomness from ``seed``."""
        self._generator = torch.Generator().manual_seed(seed)

    def accepts(self, sessions: Sessions, items: Tensor, network: ItemNetwork) -> Tensor:
        """Clicks, drawn: bool ``(users,)``."""
        chances = self.click_probabilities(sessions, items, network)
        return torch.rand(len(items), generator=self._generator) < chances

    def click_probabilities(
        self, sessions: Sessions, items: Tensor, network: ItemNetwork
    ) -> Tensor:
        """The probability above for each user: ``(users,)``."""
        vectors = normalize(network.item_embedding.weight.detach().cpu(), dim=1)
        tastes, boredoms = [], []
        for user in range(len(items)):
            taste = normalize(vectors[sessions.history(user)].mean(dim=0), dim=0)
            boredom = 0.0
            path = zip(sessions.paths[user], sessions.accepted[user], strict=False)
            for item, is_click in path:  # all but the item that is offered now
                boredom *= 0.8
                if is_click:
                    taste = 0.8 * taste + 0.2 * vectors[item]
                    boredom += 0.1
            tastes.append(taste)
            boredoms.append(0.8 * boredom)
        likeness = (torch.stack(tastes) * vectors[items]).sum(dim=1)
        drive = likeness - torch.tensor(boredoms) - self.threshold
        return torch.sigmoid(self.steepness * drive)
