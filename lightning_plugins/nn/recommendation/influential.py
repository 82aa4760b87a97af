"""Next items on the way to an objective."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_plugins.nn.recommendation.item_network import ItemNetwork
from lightning_plugins.nn.recommendation.sasrec import attention_blocks

_SHORTEST = 20  # windows of 20 items and more, as in the released code
_WITHOUT_OBJECTIVE = 0.1


class InfluentialNetwork(ItemNetwork):
    """IRN: causal attention in which every item also sees the objective, with a weight of its own.

    The objective stands before the sequence and sees only itself. In the released code it stands
    behind and sees the whole sequence, so that from the second layer on every item sees, through
    the objective, what comes after it; here it cannot. The objective's weight is learned for each
    head, where the paper learns one for each user.

    In training the objective is the last item of a part of a window that begins with the window,
    20 items long or longer where there are so many. A tenth of them get none, so that the network
    without an objective is a SASRec and can be judged as one.

    Source: Zhu et al., Influential Recommender System, arXiv 2211.10002, section IV-C.

    Args:
        num_items: items, numbered from 1.
        dim: of embeddings and states, a multiple of ``heads``.
        layers: blocks.
        heads: of each block's attention.
        max_length: items of a history that are looked at, the latest.
        dropout: probability, in [0, 1).

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        max_length: int = 50,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(num_items, dim, max_length, dropout)
        self.position_embedding = nn.Embedding(max_length, dim)
        nn.init.normal_(self.position_embedding.weight, std=0.02)
        self.objective_mark = nn.Parameter(0.02 * torch.randn(dim))
        self.blocks = attention_blocks(dim, layers, heads, dropout)
        self.objective_weight = nn.Parameter(torch.zeros(heads))
        self.norm = nn.LayerNorm(dim)

    def encode(self, items: Tensor, objectives: Tensor | None = None) -> Tensor:
        """States ``(batch, length, dim)``, each of its item, those before it, and the objective.

        Args:
            items: int64 ``(batch, length)``, 0 after the end.
            objectives: int64 ``(batch,)``, 0 for none; None for none at all.
        """
        if objectives is None:
            objectives = torch.zeros_like(items[:, 0])
        positions = torch.arange(items.shape[1], device=items.device)
        sequence = self.item_embedding(items) + self.position_embedding(positions)
        first = self.item_embedding(objectives) + self.objective_mark
        states = self.dropout(torch.cat([first[:, None], sequence], dim=1))
        bias = self._bias(objectives, states.shape[1])
        for block in self.blocks:
            states = block(states, bias)
        return self.norm(states[:, 1:])

    def state(self, items: Tensor, objectives: Tensor | None = None) -> Tensor:
        """The state ``(batch, dim)`` after the last item of each sequence."""
        last = (items > 0).sum(dim=1).clamp(min=1) - 1
        rows = torch.arange(len(items), device=items.device)
        return self.encode(items, objectives)[rows, last]

    def loss(self, sequences: Tensor) -> Tensor:
        """Mean cross-entropy in nats of each item up to an objective, given it and those before.

        Args:
            sequences: ``(batch, length + 1)``, ``length`` at most ``max_length``.
        """
        sequences, objectives = _with_objectives(sequences)
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        is_target = targets > 0
        states = self.encode(inputs, objectives)[is_target]
        return cross_entropy(states @ self.item_embedding.weight[1:].T, targets[is_target] - 1)

    def _bias(self, objectives: Tensor, length: int) -> Tensor:
        """What is added to the attention: ``(batch, heads, length, length)``."""
        device = objectives.device
        hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        causal = torch.zeros(length, length, device=device).masked_fill(hidden, -torch.inf)
        of_objective = torch.where(
            objectives[:, None] > 0, self.objective_weight, -torch.inf
        )  # (batch, heads)
        is_objective = torch.zeros(length, length, dtype=torch.bool, device=device)
        is_objective[1:, 0] = True  # its own row stays: it sees itself, or nothing would
        return torch.where(is_objective, of_objective[:, :, None, None], causal)


def _with_objectives(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Sequences cut after an item drawn from each, and that item, or 0 with a whole sequence."""
    lengths = (sequences > 0).sum(dim=1)
    shortest = lengths.clamp(max=_SHORTEST)
    share = torch.rand(len(sequences), device=sequences.device)
    ends = shortest + ((lengths - shortest + 1) * share).long()
    has_none = torch.rand(len(sequences), device=sequences.device) < _WITHOUT_OBJECTIVE
    ends = torch.where(has_none, lengths, ends)
    places = torch.arange(sequences.shape[1], device=sequences.device)
    objectives = sequences.gather(1, (ends - 1).clamp(min=0)[:, None])[:, 0]
    cut = sequences.masked_fill(places >= ends[:, None], 0)
    return cut, objectives.masked_fill(has_none, 0)
