"""Reads which experts the routers of a network select, whatever their architecture."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_plugins.nn.moe.routing import Routing

_ROUTER_CLASS = re.compile(r"(Router|TopKGating|MoEV1Gate|MoEGate|TopKGate)$")
_BIAS_NAMES = ("e_score_correction_bias", "expert_bias", "correction_bias")


def find_routers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the routers of a transformers network by name, in the order of its layers.

    A router is recognized by the name of its class; a router within another one is not counted.
    """
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        is_inner = any(name.startswith(f"{outer}.") for outer in found)
        if _ROUTER_CLASS.search(type(module).__name__) and not is_inner:
            found[name] = module
    return found


def selection_bias(network: nn.Module, router: str) -> Tensor | None:
    """Return the bias ``(num_experts,)`` that a router adds to the scores for the selection only.

    It is a parameter or buffer of the router or of the layer that contains it; None if the router
    has none. The result shares its memory.
    """
    parent = router.rpartition(".")[0]
    inner = [*network.get_submodule(router).modules()]
    for module in (*inner, network.get_submodule(parent)):
        for name in _BIAS_NAMES:
            bias = getattr(module, name, None)
            if isinstance(bias, Tensor):
                return bias.detach().view(-1)
    return None


def routing_of(router: nn.Module, output: Any) -> Routing | None:
    """Convert the output of a router to a :class:`Routing`; None if its form is unknown.

    Known forms are: a tuple with the selected experts, int64 ``(tokens, top_k)``, their weights of
    the same shape, and the logits ``(tokens, num_experts)`` in any order, as most architectures
    have; Llama 4's scores of all experts, which are 0 for those not selected; and JetMoE's sorted
    rows.
    """
    parts = (
        [part for part in output if isinstance(part, Tensor)] if isinstance(output, tuple) else []
    )
    sizes = [part for part in output if isinstance(part, list)] if isinstance(output, tuple) else []
    if sizes and len(parts) == 4:
        order, _, gates, logits = parts
        return _from_sorted_rows(order, gates, logits, sizes[0])
    matrices = [part.flatten(0, -2) for part in parts if part.dim() >= 2]
    experts = [m for m in matrices if not m.is_floating_point()]
    scores = [m for m in matrices if m.is_floating_point()]
    if len(experts) == 1 and scores:
        chosen = experts[0].long()
        weights = next((m for m in reversed(scores) if m.shape == chosen.shape), None)
        before = next((m for m in scores if m is not weights), None)
        if weights is None or before is None:
            return None
        return Routing(before, chosen, weights)
    if not experts and len(scores) == 2 and scores[0].shape == scores[1].shape:
        top_k = getattr(router, "top_k", None)
        if isinstance(top_k, int) and bool(((scores[0] != 0).sum(dim=-1) <= top_k).all()):
            weights, chosen = scores[0].topk(top_k, dim=-1)
            return Routing(scores[1], chosen, weights)
    return None


def _from_sorted_rows(order: Tensor, gates: Tensor, logits: Tensor, sizes: list[int]) -> Routing:
    every = torch.arange(len(sizes), device=order.device)
    experts = torch.empty_like(order)
    experts[order] = every.repeat_interleave(torch.tensor(sizes, device=order.device))
    weights = torch.empty_like(gates)
    weights[order] = gates
    shape = (len(logits), -1)
    return Routing(logits, experts.view(shape), weights.view(shape))


@contextmanager
def recorded_routings(network: nn.Module) -> Iterator[list[Routing]]:
    """Yield a list that receives the routing of each router in the forward passes of the block."""
    routings: list[Routing] = []

    def record(router: nn.Module, arguments: Any, output: Any) -> None:
        routing = routing_of(router, output)
        if routing is not None:
            routings.append(routing)

    handles = [router.register_forward_hook(record) for router in find_routers(network).values()]
    try:
        yield routings
    finally:
        for handle in handles:
            handle.remove()


def count_selections(
    network: nn.Module, router: str, counts: Tensor, is_active: Callable[[], bool]
) -> torch.utils.hooks.RemovableHandle:
    """Add the number of tokens per expert to ``counts`` in each forward pass of a router.

    Args:
        network: Network that contains the router.
        router: Name of the router.
        counts: Tokens per expert ``(num_experts,)``, changed in place.
        is_active: Whether a pass is counted.

    Returns:
        The handle that removes the hook.
    """

    def count(module: nn.Module, arguments: Any, output: Any) -> None:
        routing = routing_of(module, output) if is_active() else None
        if routing is not None:
            chosen = routing.experts.flatten()
            counts.scatter_add_(0, chosen, torch.ones_like(chosen, dtype=counts.dtype))

    return network.get_submodule(router).register_forward_hook(count)
