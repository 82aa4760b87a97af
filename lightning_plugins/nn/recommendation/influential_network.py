"""IRN: next-item prediction on the way to an objective."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_plugins.nn.recommendation.item_network import check_length, last_states, latest
from lightning_plugins.nn.recommendation.sasrec import SASRec

_MIN_WINDOW = 20  # the released code uses windows of 20 items and more
_SHARE_WITHOUT_OBJECTIVE = 0.1
_USER_DIM = 10  # size of the user embedding in the released code


class InfluentialNetwork(SASRec):
    """IRN: a SASRec in which every item also attends to the objective, with a weight per user.

    The objective precedes the sequence and attends only to itself. In the released code it follows
    the sequence and attends to all of it. From the second layer on, every item then sees later
    items through the objective; here it cannot.

    The weight is added to the attention scores of the objective. It is a linear function of an
    embedding of the user, the personalized impressionability of the paper. The paper adds 0.05 to
    the scores of all other items; here the function's bias takes this part. An unknown user, number
    0, has the mean of the weights of all users. Without ``num_users``, all users have the same
    weight, which is learned per head.

    In training, a sample is the beginning of a window, at least 20 items long if the window has so
    many, and its last item is the objective. A tenth of the samples have no objective. Without an
    objective, the network is therefore a SASRec and can be evaluated as one.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, and its released code.

    Args:
        num_items: Number of items. Items are numbered from 1.
        dim: Size of embeddings and states, a multiple of ``heads``.
        layers: Number of attention blocks.
        heads: Number of attention heads per block.
        max_length: Maximum length of a history. Only the latest items are used.
        dropout: Dropout probability, in [0, 1).
        num_users: Number of users with a weight of their own. Users are numbered from 1.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, num_items: int, *, num_users: int | None = None, **settings: Any) -> None:
        super().__init__(num_items, **settings)
        self.num_users = num_users
        if num_users is not None:
            if num_users < 1:
                raise ValueError(f"num_users={num_users}: expected at least 1, or None")
            del self.objective_weight
            self.user_embedding = nn.Embedding(num_users, _USER_DIM)
            self.impressionability = nn.Linear(_USER_DIM, 1)

    def encode(
        self, items: Tensor, objectives: Tensor | None = None, users: Tensor | None = None
    ) -> Tensor:
        """Return states ``(batch, length, dim)``.

        Each state depends on its item, the items before it, and the objective.

        Args:
            items: int64 ``(batch, length)``, padded with 0 at the end.
            objectives: int64 ``(batch,)``, 0 for samples without one; None if no sample has one.
            users: int64 ``(batch,)``, 0 for unknown users; None if all are unknown.
        """
        if objectives is None:
            objectives = torch.zeros_like(items[:, 0])
        sequence = self._embedded(items)
        first = self.item_embedding(objectives) + self.objective_mark
        states = torch.cat([first[:, None], sequence], dim=1)
        states = self._attended(states, self._bias(objectives, users, states.shape[1]))
        return self.norm(states[:, 1:])

    def state(
        self, items: Tensor, objectives: Tensor | None = None, users: Tensor | None = None
    ) -> Tensor:
        """Return the state ``(batch, dim)`` after the latest ``max_length`` items of sequences."""
        items = latest(items, self.max_length)
        return last_states(self.encode(items, objectives, users), items)

    def loss(self, sequences: Tensor, users: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy in nats of each item up to an objective.

        Each item is predicted from the objective and the items before it.

        Args:
            sequences: Item numbers ``(batch, length + 1)``, with ``length`` at most ``max_length``.
            users: User numbers ``(batch,)``, 0 for unknown users; None if all are unknown.

        Raises:
            ValueError: The sequences are longer.
        """
        check_length(sequences, self.max_length)
        sequences, objectives = _with_objectives(sequences)
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        return self._cross_entropy(self.encode(inputs, objectives, users), targets)

    def _add_parameters(self, dim: int, heads: int) -> None:
        self.objective_mark = nn.Parameter(0.02 * torch.randn(dim))
        self.objective_weight = nn.Parameter(torch.zeros(heads))

    def weights(self, users: Tensor) -> Tensor:
        """Return the weight of the objective for each user and head, ``(batch, heads)`` or
        ``(batch, 1)``; ``users`` is int64 ``(batch,)``, 0 for unknown users.
        """
        if self.num_users is None:
            return self.objective_weight.expand(len(users), -1)
        known = self.user_embedding((users - 1).clamp(min=0))
        mean = self.user_embedding.weight.mean(dim=0)
        return self.impressionability(torch.where(users[:, None] > 0, known, mean))

    def _bias(self, objectives: Tensor, users: Tensor | None, length: int) -> Tensor:
        """Return the bias of the attention scores, ``(batch, heads or 1, length, length)``."""
        device = objectives.device
        hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        causal = torch.zeros(length, length, device=device).masked_fill(hidden, -torch.inf)
        of_objective = torch.where(
            objectives[:, None] > 0,
            self.weights(torch.zeros_like(objectives) if users is None else users),
            -torch.inf,
        )  # (batch, heads or 1)
        is_objective = torch.zeros(length, length, dtype=torch.bool, device=device)
        is_objective[1:, 0] = True  # not in row 0, where the objective must attend to itself
        return torch.where(is_objective, of_objective[:, :, None, None], causal)


def _with_objectives(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Truncate each sequence after a random item, and return that item as the objective.

    A sequence without an objective is not truncated, and its objective is 0.
    """
    lengths = (sequences > 0).sum(dim=1)
    shortest = lengths.clamp(max=_MIN_WINDOW)
    share = torch.rand(len(sequences), device=sequences.device)
    ends = shortest + ((lengths - shortest + 1) * share).long()
    has_none = torch.rand(len(sequences), device=sequences.device) < _SHARE_WITHOUT_OBJECTIVE
    ends = torch.where(has_none, lengths, ends)
    places = torch.arange(sequences.shape[1], device=sequences.device)
    objectives = sequences.gather(1, (ends - 1).clamp(min=0)[:, None])[:, 0]
    cut = sequences.masked_fill(places >= ends[:, None], 0)
    return cut, objectives.masked_fill(has_none, 0)
