"""What is added to the loss so that a gate uses all of its experts."""

import torch
from torch import Tensor

from lightning_plugins.nn.moe.routing import Routing


def load_balancing_loss(routing: Routing) -> Tensor:
    """``E * sum_i f_i P_i``: 1 where load and probability are spread evenly, up to E.

    f_i is the share of assignments that go to expert i, P_i its mean probability under the softmax
    over all experts. The gradient flows through P alone.

    Source: Fedus et al., Switch Transformers, arXiv 2101.03961, equations 4 to 6; with ``top_k``
    assignments a token, shares are of all of them.
    """
    probabilities = routing.scores.softmax(dim=-1).mean(dim=0)
    return routing.num_experts * (expert_load(routing) * probabilities).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Mean squared logarithm of the sum of exponentiated scores; keeps scores small.

    Source: Zoph et al., ST-MoE, arXiv 2202.08906, equation 5.
    """
    return routing.scores.logsumexp(dim=-1).square().mean()


def expert_load(routing: Routing) -> Tensor:
    """Share of all assignments that each expert gets ``(num_experts,)``; sums to 1."""
    chosen = routing.experts.flatten()
    # Half precision could not count beyond 256.
    ones = torch.ones_like(chosen, dtype=routing.scores.dtype)
    load = torch.zeros(routing.num_experts, dtype=ones.dtype, device=ones.device)
    return load.scatter_add(0, chosen, ones) / chosen.numel()
