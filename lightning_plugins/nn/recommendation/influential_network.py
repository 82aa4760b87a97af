"""IRN: next-item prediction on the way to an objective."""

import torch
from torch import Tensor, nn

from lightning_plugins.nn.recommendation.item_network import check_length, last_states, latest
from lightning_plugins.nn.recommendation.sasrec import SASRec

_MIN_WINDOW = 20  # the released code uses windows of 20 items and more
_SHARE_WITHOUT_OBJECTIVE = 0.1


class InfluentialNetwork(SASRec):
    """IRN: a SASRec in which every item also attends to the objective, with a learned weight.

    The objective precedes the sequence and attends only to itself. In the released code it follows
    the sequence and attends to all of it. From the second layer on, every item then sees later
    items through the objective; here it cannot. The weight of the objective is learned per head,
    where the paper learns one per user.

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

    Raises:
        ValueError: An argument is out of range.
    """

    def encode(self, items: Tensor, objectives: Tensor | None = None) -> Tensor:
        """Return states ``(batch, length, dim)``.

        Each state depends on its item, the items before it, and the objective.

        Args:
            items: int64 ``(batch, length)``, padded with 0 at the end.
            objectives: int64 ``(batch,)``, 0 for samples without one; None if no sample has one.
        """
        if objectives is None:
            objectives = torch.zeros_like(items[:, 0])
        sequence = self._embedded(items)
        first = self.item_embedding(objectives) + self.objective_mark
        states = torch.cat([first[:, None], sequence], dim=1)
        states = self._attended(states, self._bias(objectives, states.shape[1]))
        return self.norm(states[:, 1:])

    def state(self, items: Tensor, objectives: Tensor | None = None) -> Tensor:
        """Return the state ``(batch, dim)`` after the latest ``max_length`` items of sequences."""
        items = latest(items, self.max_length)
        return last_states(self.encode(items, objectives), items)

    def loss(self, sequences: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats of each item up to an objective.

        Each item is predicted from the objective and the items before it.

        Args:
            sequences: Item numbers ``(batch, length + 1)``, with ``length`` at most ``max_length``.

        Raises:
            ValueError: The sequences are longer.
        """
        check_length(sequences, self.max_length)
        sequences, objectives = _with_objectives(sequences)
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        return self._cross_entropy(self.encode(inputs, objectives), targets)

    def _add_parameters(self, dim: int, heads: int) -> None:
        self.objective_mark = nn.Parameter(0.02 * torch.randn(dim))
        self.objective_weight = nn.Parameter(torch.zeros(heads))

    def _bias(self, objectives: Tensor, length: int) -> Tensor:
        """Return the bias of the attention scores, ``(batch, heads, length, length)``."""
        device = objectives.device
        hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        causal = torch.zeros(length, length, device=device).masked_fill(hidden, -torch.inf)
        of_objective = torch.where(
            objectives[:, None] > 0, self.objective_weight, -torch.inf
        )  # (batch, heads)
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
