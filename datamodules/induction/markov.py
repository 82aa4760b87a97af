"""Sequences of Markov chains, with a new chain for each sequence."""

import math

import torch
from torch import Tensor

from lightning_plugins.datamodules.generated import GeneratedDataModule
from lightning_plugins.nn.induction.ngrams import context_numbers


class MarkovChainDataModule(GeneratedDataModule):
    """Markov chains whose statistics a model can only learn from the context.

    Each sequence comes from a new chain. The rows of its transition matrix are drawn from a
    Dirichlet distribution, its first tokens from the stationary distribution. Batches are int64
    ``(batch, length)``. This is the setting of Edelman et al. (arXiv 2402.11004); an ``order``
    above 1 extends it to longer n-grams.

    Args:
        num_states: Number of different tokens.
        order: Number of previous tokens that the next token depends on; 1 is the ordinary chain.
        length: Tokens per sequence, more than ``order + 1``.
        concentration: Parameter of the Dirichlet distribution; 1 is uniform.
        batch_size: Sequences per batch on each rank.
        steps_per_epoch: Training batches per rank in one epoch.
        eval_batches: Batches of the validation part, and of the test part.
        seed: Seed of all data.

    Raises:
        ValueError: An argument is outside its range.
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
        """Number of different tokens."""
        return self.num_states

    def draw(self) -> Tensor:
        """Generate a batch with torch's global generator."""
        rows = torch.full((self.num_states,), self.concentration, dtype=torch.float64)
        contexts = (self.batch_size, self.num_states**self.order)
        chains = torch.distributions.Dirichlet(rows).sample(contexts)
        return sample_sequences(chains, self.length)


def sample_sequences(chains: Tensor, length: int) -> Tensor:
    """Draw one sequence of each chain, starting from its stationary distribution.

    Args:
        chains: Distribution of the next token for each context, ``(batch, num_states**order,
            num_states)``; contexts are numbered as in ``context_numbers``.
        length: Tokens per sequence, at least the order.

    Returns:
        Sequences, int64 ``(batch, length)``, drawn with torch's global generator.
    """
    batch, num_contexts, num_states = chains.shape
    order = round(math.log(num_contexts, num_states))
    context = torch.multinomial(stationary_distribution(chains), 1)
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


def stationary_distribution(chains: Tensor) -> Tensor:
    """Compute the stationary distribution over each chain's contexts.

    Args:
        chains: As in :func:`sample_sequences`.

    Returns:
        Probabilities ``(batch, num_contexts)``.
    """
    batch, num_contexts, num_states = chains.shape
    moves = chains.new_zeros(batch, num_contexts, num_contexts)
    context = torch.arange(num_contexts)
    for token in range(num_states):
        moves[:, context, (context * num_states + token) % num_contexts] += chains[:, :, token]
    # The only π with Mᵀ π = π and Σ π = 1; the sum of both equations is a regular system.
    system = moves.transpose(1, 2) - torch.eye(num_contexts, dtype=chains.dtype) + 1
    probabilities = torch.linalg.solve(system, chains.new_ones(batch, num_contexts))
    return probabilities.clamp(min=0)
