"""Giving tokens to their experts: one function, three back-ends that compute the same."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lightning_plugins.nn.moe.experts import ExpertLinear, grouped_mm, supports_grouped_mm
from lightning_plugins.nn.moe.routing import Routing

Backend = Literal["auto", "dense", "loop", "grouped_mm"]
BACKENDS = ("auto", "dense", "loop", "grouped_mm")


def dispatch(
    tokens: Tensor,
    routing: Routing,
    experts: Callable[[Tensor, ExpertLinear], Tensor],
    backend: Backend = "auto",
) -> Tensor:
    """Weighted sum of the outputs of each token's experts ``(tokens, out)``.

    ``dense`` computes every expert for every token: the reference, and fast where all is tiny.
    ``loop`` sorts tokens by expert and multiplies one expert's after the other. ``grouped_mm``
    does so in one call of torch. ``auto`` is ``grouped_mm`` where torch has it for the tokens'
    type, else ``loop``. No token is dropped, and an expert may get none.

    Args:
        tokens: ``(tokens, in)``.
        routing: of these tokens.
        experts: from rows and the back-end's linear layer to rows, as :class:`Experts`.
        backend: as above.

    Raises:
        ValueError: an unknown back-end, or one that does not know the tokens' type.
    """
    backend = resolve_backend(backend, tokens.dtype)
    if backend == "dense":
        return _all_experts(tokens, routing, experts)
    groups = Groups(routing)
    linear: ExpertLinear
    if backend == "loop":
        linear = partial(loop_linear, sizes=groups.sizes())
    else:
        linear = partial(grouped_linear, groups=groups)
    num_tokens, top_k = routing.experts.shape
    rows = experts(tokens.index_select(0, groups.order // top_k), linear)
    outputs = rows.index_select(0, groups.inverse).view(num_tokens, top_k, rows.shape[-1])
    return (routing.weights.unsqueeze(-1).to(outputs.dtype) * outputs).sum(dim=1)


def resolve_backend(backend: Backend, dtype: torch.dtype) -> Backend:
    """The back-end that computes in ``dtype``: ``auto`` replaced by a choice.

    Raises:
        ValueError: an unknown back-end, or ``grouped_mm`` for a type that it does not know.
    """
    if backend == "auto":
        return "grouped_mm" if supports_grouped_mm(dtype) else "loop"
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: expected {', '.join(map(repr, BACKENDS))}")
    if backend == "grouped_mm" and not supports_grouped_mm(dtype):
        raise ValueError(
            f"backend='grouped_mm': torch {torch.__version__} does not group products in {dtype}; "
            "use backend='loop', or 'auto', which falls back to it"
        )
    return backend


class Groups:
    """Rows, one for each (token, selected expert), sorted by expert.

    Attributes:
        order: row -> its place in the flattened ``(tokens, top_k)``.
        inverse: place in the flattened ``(tokens, top_k)`` -> row.
        experts: the expert of each row, ascending.
        ends: where each expert's rows end, int32 ``(num_experts,)``.
    """

    def __init__(self, routing: Routing) -> None:
        self.experts, self.order = routing.experts.flatten().sort(stable=True)
        device = self.order.device
        self.inverse = torch.empty_like(self.order)
        self.inverse[self.order] = torch.arange(len(self.order), device=device)
        every = torch.arange(routing.num_experts, device=device)
        self.ends = torch.searchsorted(self.experts, every, right=True, out_int32=True)

    def sizes(self) -> list[int]:
        """Rows of each expert, on the host."""
        return self.ends.diff(prepend=self.ends.new_zeros(1)).tolist()


def grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups) -> Tensor:
    """All experts' rows in one call."""
    product = grouped_mm(rows, weight, groups.ends)
    if bias is None:
        return product
    return product + bias.index_select(0, groups.experts).to(product.dtype)


def loop_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
    """One expert's rows after the other."""
    pieces = rows.split(sizes)
    # Unbound once: the gradient of weight[e] would be an array of all experts for every e.
    weights = weight.unbind()
    if bias is None:
        return torch.cat([piece @ one for piece, one in zip(pieces, weights, strict=True)])
    return torch.cat(
        [
            torch.addmm(shift, piece, one)
            for piece, one, shift in zip(pieces, weights, bias.unbind(), strict=True)
        ]
    )


def dense_linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Rows ``(num_experts, rows, in)``, all of every expert."""
    return rows @ weight if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)


def _all_experts(
    tokens: Tensor, routing: Routing, experts: Callable[[Tensor, ExpertLinear], Tensor]
) -> Tensor:
    outputs = experts(tokens.expand(routing.num_experts, -1, -1), dense_linear)
    weights = torch.zeros_like(routing.logits, dtype=routing.weights.dtype)
    weights = weights.scatter(1, routing.experts, routing.weights).to(outputs.dtype)
    return torch.einsum("te,eto->to", weights, outputs)
