"""Sends tokens to their experts with one of three equivalent back-ends."""

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
    """Compute the weighted sum of the outputs of each token's experts ``(tokens, out)``.

    ``dense`` computes every expert for every token: it is the reference, and fast for tiny sizes.
    ``loop`` sorts the tokens by expert and computes one expert after the other. ``grouped_mm``
    computes all experts in one call of torch. No token is dropped, and experts can be empty.

    ``auto`` selects ``grouped_mm``, or ``loop`` where torch does not support it for the dtype. On a
    CPU it selects by rules that were fitted to measurements (``benchmarks/moe.py``): ``dense`` for
    tiny sizes and ``loop`` for up to 8 experts. The choice depends on shapes only, so a resumed run
    repeats it. Compiled code uses ``grouped_mm``.

    Args:
        tokens: Tokens ``(tokens, in)``.
        routing: Routing of these tokens.
        experts: Maps rows and the back-end's linear layer to rows, like :class:`Experts`.
        backend: ``auto``, ``dense``, ``loop`` or ``grouped_mm``.

    Raises:
        ValueError: The back-end is unknown or does not support the dtype.
    """
    if backend == "auto" and tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        backend = _fastest_on_cpu(tokens, routing, experts)
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


# Fitted to forward and backward passes of one thread in single precision.
_MOST_PRODUCTS_OF_DENSE = 2.2e6
_MOST_ROWS_OF_DENSE = 2048
_MOST_EXPERTS_OF_LOOP = 8


def _fastest_on_cpu(
    tokens: Tensor, routing: Routing, experts: Callable[[Tensor, ExpertLinear], Tensor]
) -> Backend:
    tokens_per_choice = len(tokens) * routing.num_experts / routing.experts.shape[1]
    weights = getattr(getattr(experts, "__self__", experts), "weights", None)
    if weights is not None and tokens_per_choice <= _MOST_ROWS_OF_DENSE:
        products = len(tokens) * sum(weight.numel() for weight in weights)
        if products <= _MOST_PRODUCTS_OF_DENSE:
            return "dense"
    return "loop" if routing.num_experts <= _MOST_EXPERTS_OF_LOOP else "auto"


def resolve_backend(backend: Backend, dtype: torch.dtype) -> Backend:
    """Return the back-end for ``dtype``, with ``auto`` replaced by a concrete one.

    Raises:
        ValueError: The back-end is unknown, or ``grouped_mm`` does not support the dtype.
    """
    if backend == "auto":
        return "grouped_mm" if supports_grouped_mm(dtype) else "loop"
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: expected {', '.join(map(repr, BACKENDS))}")
    if backend == "grouped_mm" and not supports_grouped_mm(dtype):
        raise ValueError(
            f"backend='grouped_mm': torch {torch.__version__} does not support it in {dtype}; "
            "use backend='loop', or 'auto', which falls back to 'loop'"
        )
    return backend


class Groups:
    """One row for each pair (token, selected expert), sorted by expert.

    Attributes:
        order: Index of each row in the flattened ``(tokens, top_k)``.
        inverse: Row of each index of the flattened ``(tokens, top_k)``.
        experts: Expert of each row, ascending.
        ends: End of each expert's rows, int32 ``(num_experts,)``.
    """

    def __init__(self, routing: Routing) -> None:
        self.experts, self.order = routing.experts.flatten().sort(stable=True)
        device = self.order.device
        self.inverse = torch.empty_like(self.order)
        self.inverse[self.order] = torch.arange(len(self.order), device=device)
        every = torch.arange(routing.num_experts, device=device)
        self.ends = torch.searchsorted(self.experts, every, right=True, out_int32=True)

    def sizes(self) -> list[int]:
        """Return the number of rows per expert; synchronizes with the host."""
        return self.ends.diff(prepend=self.ends.new_zeros(1)).tolist()


def grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups) -> Tensor:
    """Compute all experts in one call."""
    product = grouped_mm(rows, weight, groups.ends)
    if bias is None:
        return product
    return product + bias.index_select(0, groups.experts).to(product.dtype)


def loop_linear(rows: Tensor, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> Tensor:
    """Compute one expert after the other."""
    pieces = rows.split(sizes)
    # Unbound once: the gradient of each weight[e] would have the size of all experts.
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
    """Compute every expert for all its rows ``(num_experts, rows, in)``."""
    return rows @ weight if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)


def _all_experts(
    tokens: Tensor, routing: Routing, experts: Callable[[Tensor, ExpertLinear], Tensor]
) -> Tensor:
    outputs = experts(tokens.expand(routing.num_experts, -1, -1), dense_linear)
    weights = torch.zeros_like(routing.logits, dtype=routing.weights.dtype)
    weights = weights.scatter(1, routing.experts, routing.weights).to(outputs.dtype)
    return torch.einsum("te,eto->to", weights, outputs)
