"""Attention weights and head matrices of a network that was not written to show them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True)
class HeadMatrices:
    """Values and output of the heads of a layer.

    Attributes:
        value: ``W_V`` ``(heads, dim, head_dim)``; heads that share values repeat them.
        output: ``W_O`` ``(heads, head_dim, dim)``.
        output_name: of the parameter that ``W_O`` is a view of.
        inputs_first: whether that parameter has its inputs along the first axis.
    """

    value: Tensor
    output: Tensor
    output_name: str
    inputs_first: bool


class AttentionAccess:
    """Finds the network in a module, and asks it for its attention.

    In this order: what has a method ``attention_patterns(tokens)`` that gives ``(batch, heads,
    length, length)`` for each layer, and gives logits when called; a model of transformers, which
    is asked for ``output_attentions`` with its eager attention for the time of the call; a module
    with ``torch.nn.MultiheadAttention`` inside, which gives logits when called.

    Args:
        module: in which to look.

    Raises:
        MisconfigurationException: there is none of the three.
    """

    def __init__(self, module: nn.Module) -> None:
        self.network, self._kind = _network_of(module)

    @property
    def vocab_size(self) -> int | None:
        """Tokens of the network, where it tells."""
        config = getattr(self.network, "config", None)
        return getattr(self.network, "vocab_size", getattr(config, "vocab_size", None))

    @property
    def max_length(self) -> int | None:
        """Tokens of the longest sequence, where the network tells."""
        config = getattr(self.network, "config", None)
        return getattr(self.network, "max_length", getattr(config, "max_position_embeddings", None))

    def logits(self, tokens: Tensor, replaced: dict[str, Tensor] | None = None) -> Tensor:
        """``(batch, length, vocab_size)``, with some parameters replaced for this call."""
        arguments = {"use_cache": False} if self._kind == "transformers" else {}
        found = functional_call(self.network, replaced or {}, (tokens,), arguments)
        return getattr(found, "logits", found)

    def patterns(self, tokens: Tensor) -> list[Tensor]:
        """Attention ``(batch, heads, length, length)`` of each layer, rows sum to 1.

        Raises:
            MisconfigurationException: the network gives no weights.
        """
        if self._kind == "own":
            return list(self.network.attention_patterns(tokens))
        if self._kind == "torch":
            return self._patterns_of_torch(tokens)
        with _eager_attention(self.network):
            found = self.network(tokens, output_attentions=True, use_cache=False).attentions
        if not found or any(layer is None for layer in found):
            setting = getattr(self.network.config, "_attn_implementation", "unknown")
            raise MisconfigurationException(
                f"{type(self.network).__name__} returns no attention weights with "
                f"attn_implementation={setting!r}: load it with attn_implementation='eager'"
            )
        return list(found)

    def matrices(self, heads: list[int]) -> list[HeadMatrices] | None:
        """Of each layer, given its number of heads; None where they are not laid out as known.

        Known are ``v_proj`` and ``o_proj`` (LLaMA and its like), ``c_attn`` and ``c_proj`` as
        GPT-2's ``Conv1D`` or nanoGPT's ``torch.nn.Linear``, and ``torch.nn.MultiheadAttention``.
        """
        found = [
            (name, kind, part)
            for name, part in self.network.named_modules()
            if (kind := _layout(part)) is not None
        ]
        if len(found) != len(heads):
            return None
        return [
            _matrices(f"{name}." if name else "", kind, part, count)
            for (name, kind, part), count in zip(found, heads, strict=True)
        ]

    def vocabulary(self) -> tuple[Tensor, Tensor] | None:
        """``W_E`` ``(vocab_size, dim)`` and ``W_U`` ``(dim, vocab_size)``, where they are known."""
        if self._kind == "transformers":
            embed, unembed = (
                self.network.get_input_embeddings(),
                self.network.get_output_embeddings(),
            )
        else:
            embed = getattr(self.network, "embed", None)
            unembed = getattr(self.network, "unembed", None)
        if embed is None or unembed is None:
            return None
        return embed.weight.detach(), unembed.weight.detach().T

    def _patterns_of_torch(self, tokens: Tensor) -> list[Tensor]:
        patterns: list[Tensor] = []

        def ask(part: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

        def take(part: nn.Module, args: Any, output: Any) -> None:
            patterns.append(output[1])

        layers = [m for m in self.network.modules() if isinstance(m, nn.MultiheadAttention)]
        handles = [layer.register_forward_pre_hook(ask, with_kwargs=True) for layer in layers]
        handles += [layer.register_forward_hook(take) for layer in layers]
        had_fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it goes around the hooks
        try:
            self.network(tokens)
        finally:
            torch.backends.mha.set_fastpath_enabled(had_fast_path)
            for handle in handles:
                handle.remove()
        return patterns


def without_head(matrices: HeadMatrices, head: int, network: nn.Module) -> dict[str, Tensor]:
    """The output projection with the inputs from ``head`` set to zero, under its name."""
    weight = network.get_parameter(matrices.output_name).detach().clone()
    size = matrices.output.shape[1]
    part = slice(head * size, (head + 1) * size)
    if matrices.inputs_first:
        weight[part] = 0
    else:
        weight[:, part] = 0
    return {matrices.output_name: weight}


def _network_of(module: nn.Module) -> tuple[Any, str]:
    parts = list(module.modules())
    for part in parts:
        if hasattr(part, "attention_patterns"):
            return part, "own"
    for part in parts:
        if hasattr(part, "get_output_embeddings") and hasattr(part, "config"):
            return part, "transformers"
    if any(isinstance(part, nn.MultiheadAttention) for part in parts):
        return module, "torch"
    raise MisconfigurationException(
        f"{type(module).__name__} has no attention that can be read: expected a model of "
        "transformers, torch.nn.MultiheadAttention, or a method attention_patterns(tokens) that "
        "gives (batch, heads, length, length) for each layer"
    )


@contextmanager
def _eager_attention(network: Any) -> Iterator[None]:
    before = getattr(network.config, "_attn_implementation", None)
    if before == "eager" or not hasattr(network, "set_attn_implementation"):
        yield
        return
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def _layout(part: nn.Module) -> str | None:
    if isinstance(part, nn.MultiheadAttention):
        return "torch" if part.in_proj_weight is not None else None
    if hasattr(part, "v_proj") and hasattr(part, "o_proj"):
        return "llama"
    if hasattr(part, "c_attn") and hasattr(part, "c_proj"):
        return _layout_of_fused(part)
    return None


def _layout_of_fused(part: Any) -> str | None:
    weight = getattr(part.c_attn, "weight", None)
    # GPTBigCode, which has this flag, keeps the query, key and value of a head side by side.
    if weight is None or weight.dim() != 2 or hasattr(part, "multi_query"):
        return None
    is_linear = isinstance(part.c_attn, nn.Linear)
    inputs, outputs = reversed(weight.shape) if is_linear else weight.shape
    # Also tells a layer of cross-attention, and transposed weights that are no nn.Linear.
    if outputs != 3 * inputs or isinstance(part.c_proj, nn.Linear) != is_linear:
        return None
    return "nanogpt" if is_linear else "gpt2"


def _matrices(prefix: str, layout: str, part: Any, heads: int) -> HeadMatrices:
    if layout == "gpt2":  # Conv1D: inputs along the first axis
        value = part.c_attn.weight.detach().chunk(3, dim=1)[2]
        output, name = part.c_proj.weight.detach(), "c_proj.weight"
    elif layout == "nanogpt":  # the same names, outputs along the first axis
        value = part.c_attn.weight.detach().chunk(3)[2].T
        output, name = part.c_proj.weight.detach().T, "c_proj.weight"
    elif layout == "torch":
        value = part.in_proj_weight.detach().chunk(3)[2].T
        output, name = part.out_proj.weight.detach().T, "out_proj.weight"
    else:
        value = part.v_proj.weight.detach().T
        output, name = part.o_proj.weight.detach().T, "o_proj.weight"
    output = output.unflatten(0, (heads, -1))
    by_head = value.unflatten(1, (-1, output.shape[1])).transpose(0, 1)
    by_head = by_head.repeat_interleave(heads // len(by_head), dim=0)
    return HeadMatrices(by_head, output, prefix + name, layout == "gpt2")
