"""Sequences of Markov chains, each of a chain of its own."""

import math

import torch
from torch import Tensor

from lightning_plugins.datamodules.generated import FreshDataModule
from lightning_plugins.nn.induction.ngrams import context_numbers


class MarkovChainDataModule(FreshDataModule):
    """Each sequence is of a new chain, whose statistics can only be learned in the context.

    The rows of a chain are drawn from a Dirichlet distribution, its first tokens from the
    stationary law. Batches are int64 ``(batch, length)``. The setting of Edelman et al. (arXiv
    2402.11004), and with ``order`` above 1 its extension to longer n-grams.

    Args:
        num_states: tokens.
        order: tokens that the next one depends on; 1 is a chain in the narrow sense.
        length: tokens a sequence, more than ``order + 1``.
        concentration: of the Dirichlet distribution; 1 is uniform.
        batch_size: sequences a batch on each rank.
        steps_per_epoch: training batches in what Lightning calls an epoch.
        eval_batches: batches of validation, and of test.
        seed: of all data.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        num_states: int = 3,
        order: int = 1,
        length: int = 64,
        concentration: float = 1.0,
        batch_size: int = 64,
        steps_per_epoch: int = 1000,
        eval_batches: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, steps_per_epoch, eval_batches, seed)
        if num_states < 2:
            raise ValueError(f"num_states={num_states}: expected at least 2")
        if order < 1:
            raise ValueError(f"order={order}: expected at least 1")
        if length < order + 2:
            raise ValueError(
                f"length={length}: expected at least {order + 2} tokens for order={order}"
            )
        if not 0 < concentration < float("inf"):
            raise ValueError(f"concentration={concentration}: expected a number above 0")
        self.num_states = num_states
        self.order = order
        self.length = length
        self.concentration = concentration

    @property
    def vocab_size(self) -> int:
        """Tokens."""
        return self.num_states

    def draw(self) -> Tensor:
        """A batch, from torch's global generator."""
        rows = torch.full((self.num_states,), self.concentration, dtype=torch.float64)
        contexts = (self.batch_size, self.num_states**self.order)
        chains = torch.distributions.Dirichlet(rows).sample(contexts)
        return sampled(chains, self.length)


def sampled(chains: Tensor, length: int) -> Tensor:
    """One sequence of each chain, from its stationary law on.

    Args:
        chains: ``(batch, num_states**order, num_states)``: the law of the next token for each
            context, which is numbered as by ``context_numbers``.
        length: tokens, at least the order.

    Returns:
        int64 ``(batch, length)``, drawn with torch's global generator.
    """
    batch, num_contexts, num_states = chains.shape
    order = round(math.log(num_contexts, num_states))
    context = torch.multinomial(stationary_law(chains), 1)
    digits = [context // num_states**place % num_states for place in range(order - 1, -1, -1)]
    tokens = torch.cat(digits, dim=1)
    limits = chains.cumsum(dim=-1)[..., :-1].contiguous()
    draws = torch.rand(batch, length - order, dtype=chains.dtype)
    drawn = [tokens]
    each = torch.arange(batch)
    current = context_numbers(tokens, order, num_states)[:, 0]
    for place in range(length - order):
        token = (draws[:, place, None] >= limits[each, current]).sum(dim=-1)
        drawn.append(token[:, None])
        current = (current * num_states + token) % num_contexts
    return torch.cat(drawn, dim=1)


def stationary_law(chains: Tensor) -> Tensor:
    """Of each chain's contexts, ``(batch, num_contexts)``; ``chains`` as in :func:`sampled`."""
    batch, num_contexts, num_states = chains.shape
    moves = chains.new_zeros(batch, num_contexts, num_contexts)
    context = torch.arange(num_contexts)
    for token in range(num_states):
        moves[:, context, (context * num_states + token) % num_contexts] += chains[:, :, token]
    # The law is the one vector with Mᵀ π = π and Σ π = 1; both at once are a regular system.
    system = moves.transpose(1, 2) - torch.eye(num_contexts, dtype=chains.dtype) + 1
    law = torch.linalg.solve(system, chains.new_ones(batch, num_contexts))
    return law.clamp(min=0)
