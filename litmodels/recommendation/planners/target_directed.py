"""Planners that lead to the target without a language model."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_plugins.litmodels.recommendation.planners.planner import (
    Knowledge,
    Planner,
    Sessions,
    best_allowed,
)
from lightning_plugins.nn.recommendation import InfluentialNetwork, ItemNetwork
from lightning_plugins.nn.recommendation.item_network import NetworkName, padded


class Rec2Inf(Planner):
    """Selects the item most similar to the target among the backbone's ``k`` best items.

    Similarity is the inner product of the backbone's item embeddings.

    Source: a baseline of Zhu et al., arXiv 2211.10002; k = 50 and the inner product as in the
    released code of Bi et al., arXiv 2403.07571.

    Args:
        k: Length of the backbone's list.

    Raises:
        ValueError: ``k`` is below 1.
    """

    def __init__(self, k: int = 50) -> None:
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return inner products with the target's embedding, minus infinity outside the list."""
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.k)
        embeddings = network.item_embedding.weight.cpu()
        likeness = embeddings[sessions.targets] @ embeddings.T
        return likeness.masked_fill(~listed, -torch.inf)


class InfluentialGreedy(Planner):
    r"""IPG: selects the item that maximizes
    :math:`\sigma(u^T v_i) (\cos(v_i, v_t) - \cos(u, v_t))`.

    Here u is the backbone's state, v are its item embeddings, and t is the target: the probability
    that the item is taken times its gain towards the target.

    Source: Bi et al., Proactive Recommendation with Iterative Preference Guidance,
    arXiv 2403.07571, as in its released code.
    """

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the product above for each item."""
        network = knowledge.backbone
        return _guidance(network, sessions.states(network), sessions.targets)


class InfluentialBeam(Planner):
    r"""IPG with a beam: plans the whole path at once and keeps the ``width`` best beginnings.

    A beginning has the score of its steps' sum of IPG's product, computed as if the user took every
    item before. Greedy IPG, ``width=1``, takes the best item at each step. The path does not change
    if the user rejects an item. Memory and time grow with the width.

    This planner is our own; the score of a step is that of :class:`InfluentialGreedy`.

    Args:
        width: Number of beginnings that are kept.

    Raises:
        ValueError: ``width`` is below 1.
    """

    def __init__(self, width: int = 5) -> None:
        if width < 1:
            raise ValueError(f"width={width}: expected at least 1")
        self.width = width

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return 1 for the next item of each plan, 0 for all other items."""
        if sessions.step == 0:
            self._plans = [
                self._planned(sessions, user, knowledge.backbone)
                for user in range(len(sessions.taken))
            ]
        preferences = torch.zeros(sessions.allowed.shape)
        for row, plan in zip(preferences, self._plans, strict=True):
            row[plan[sessions.step : sessions.step + 1]] = 1
        return preferences

    def _planned(self, sessions: Sessions, user: int, network: ItemNetwork) -> list[int]:
        beginnings: list[list[int]] = [[]]
        scores = torch.zeros(1)
        target = sessions.targets[user : user + 1]
        device = network.item_embedding.weight.device
        for _ in range(min(sessions.length, int(sessions.allowed[user].sum()))):
            items = [[*sessions.taken[user], *begun] for begun in beginnings]
            states = network.state(padded(items, network.max_length, device))
            gains = _guidance(network, states, target.expand(len(items))).cpu()
            allowed = sessions.allowed[user].repeat(len(items), 1)
            for row, begun in zip(allowed, beginnings, strict=True):
                row[begun] = False
            totals = (scores[:, None] + gains).masked_fill(~allowed, -torch.inf).flatten()
            scores, places = totals.topk(min(self.width, int(allowed.sum())))
            beginnings = [
                [*beginnings[place // allowed.shape[1]], place % allowed.shape[1]]
                for place in places.tolist()
            ]
        return beginnings[0]


def _guidance(network: ItemNetwork, states: Tensor, targets: Tensor) -> Tensor:
    """Return IPG's product for each item, ``(users, num_items + 1)``."""
    items = normalize(network.item_embedding.weight, dim=1)
    of_targets = items[targets.to(items.device)]
    gain = of_targets @ items.T - (normalize(states, dim=1) * of_targets).sum(1, keepdim=True)
    return network.logits(states).sigmoid() * gain


class InfluentialRecommender(Planner):
    """IRN: greedily follows a network that was trained to predict items on the way to an objective.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, and its released code.

    Args:
        checkpoint: Checkpoint of a ``SequentialRecommender`` with ``network="irn"``. If None, one
            is trained on the data with seed 4 on first use and kept in the user's cache.
    """

    needs: NetworkName | None = "irn"

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the network's logits, given the target."""
        network = self.network
        assert isinstance(network, InfluentialNetwork)
        device = network.item_embedding.weight.device
        items = padded(sessions.taken, network.max_length, device)
        states = network.state(items, sessions.targets.to(device), sessions.users.to(device))
        return network.logits(states)


class CoOccurrencePath(Planner):
    r"""Follows the most likely walk that reaches the target in the remaining number of steps.

    A step from i to j has the probability :math:`(n_{ij} + p_j) / (n_i + 1)`. Here :math:`n_{ij}`
    counts how often j was taken right after i, :math:`n_i` is the sum over j, and :math:`p_j` is
    the share of j among all interactions, so that every item can be reached. The walk is recomputed
    after each step from the item taken last.

    Memory grows with the square of the number of items.

    Source: Pf2Inf of Zhu et al., arXiv 2211.10002, takes the shortest path in this graph. Here the
    path has the length of all other planners' paths.
    """

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the log-probability of the most likely walk through each item."""
        if sessions.step == 0:
            self._steps = log_transitions(knowledge)
            self._rest = _log_walks(self._steps, sessions.targets, sessions.length)
        left = sessions.length - sessions.step
        return self._steps[sessions.last_taken()] + self._rest[left]


def log_transitions(knowledge: Knowledge) -> Tensor:
    """Return the log-probability of j after i, ``(num_items + 1, num_items + 1)``."""
    size = len(knowledge.catalogue)
    counts = torch.zeros(size, size)
    for sequence in knowledge.sequences:
        items = torch.as_tensor(sequence, dtype=torch.int64)
        pairs = items[:-1], items[1:]
        counts.index_put_(pairs, torch.ones(len(pairs[0])), accumulate=True)
    share = knowledge.item_counts / knowledge.item_counts.sum().clamp(min=1)
    # An item without training interactions has no share. It must rank last, but stay reachable.
    share = share.clamp(min=1e-9)
    return ((counts + share) / (counts.sum(dim=1, keepdim=True) + 1)).log()


def _log_walks(steps: Tensor, targets: Tensor, longest: int) -> list[Tensor]:
    """Return, for 0, 1, … steps, the best log-probability of a walk from each item to each target.

    Each entry is ``(users, num_items + 1)``.
    """
    walks = [torch.full((len(targets), len(steps)), -torch.inf)]
    walks[0][torch.arange(len(targets)), targets] = 0
    for _ in range(longest):
        best = [(steps + from_there).max(dim=1).values for from_there in walks[-1]]
        walks.append(torch.stack(best))
    return walks


class TextBridge(Planner):
    r"""Maximizes :math:`(1 - a) \cos(x_i, x_l) + a \cos(x_i, x_t)` over TF-IDF vectors x of text.

    Here l is the item taken last and t is the target; a grows linearly to 1 at the end of the path.
    The planner knows the items' text but not who takes them, like a language model. With
    ``shortlist`` it selects among the backbone's best items and adds the cosine of the backbone's
    embeddings with the target's, which combines text and behaviour. This planner is our own; it
    uses no language model.

    Args:
        shortlist: Number of the backbone's best items to select from; None uses the whole
            catalogue.

    Raises:
        ValueError: ``shortlist`` is below 1.
    """

    def __init__(self, shortlist: int | None = None) -> None:
        if shortlist is not None and shortlist < 1:
            raise ValueError(f"shortlist={shortlist}: expected at least 1, or None")
        self.shortlist = shortlist

    def preferences(self, sessions: Sessions, knowledge: Knowledge) -> Tensor:
        """Return the mixture of cosines for each item."""
        vectors = knowledge.text_vectors
        share = (sessions.step + 1) / sessions.length
        to_last = vectors[sessions.last_taken()] @ vectors.T
        bridge = (1 - share) * to_last + share * vectors[sessions.targets] @ vectors.T
        if self.shortlist is None:
            return bridge
        network = knowledge.backbone
        logits = network.logits(sessions.states(network)).cpu()
        listed = best_allowed(logits, sessions.allowed, self.shortlist)
        embeddings = normalize(network.item_embedding.weight.cpu(), dim=1)
        bridge = bridge + embeddings[sessions.targets] @ embeddings.T
        return bridge.masked_fill(~listed, -torch.inf)
