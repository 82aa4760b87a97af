"""Reads attention weights and head matrices from networks of several libraries."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_plugins.nn.shards import (
    first_indices,
    is_sharded,
    local,
    reshard,
    whole,
    whole_heads,
)

_SOFTMAX_LAYERS = ("attention", "full_attention", "sliding_attention", "chunked_attention")


@dataclass(frozen=True)
class HeadMatrices:
    """Value and output matrices of the heads of one layer.

    Attributes:
        value: ``W_V``, shape ``(heads, dim, head_dim)``; heads that share values repeat them.
        output: ``W_O``, shape ``(heads, head_dim, dim)``.
        output_name: The name of the parameter that contains ``W_O``.
        inputs_first: Whether the first axis of that parameter is its input.
    """

    value: Tensor
    output: Tensor
    output_name: str
    inputs_first: bool


class AttentionAccess:
    """Finds the network in a module and reads its attention.

    It uses the first of these that it finds: a submodule with a method
    ``attention_patterns(tokens)`` that returns ``(batch, heads, length, length)`` for each layer,
    and that returns logits when called; a model of transformers, which is called with
    ``output_attentions`` and temporarily with its eager attention; a module that contains
    ``torch.nn.MultiheadAttention`` and returns logits when called.

    Args:
        module: The module to search.

    Raises:
        MisconfigurationException: None of the three is found.
    """

    def __init__(self, module: nn.Module) -> None:
        self.network, self._kind = _network_of(module)

    @property
    def vocab_size(self) -> int | None:
        """The number of tokens of the vocabulary, or None if the network does not have it."""
        config = getattr(self.network, "config", None)
        return getattr(self.network, "vocab_size", getattr(config, "vocab_size", None))

    @property
    def max_length(self) -> int | None:
        """The length of the longest sequence, or None if the network does not have it."""
        config = getattr(self.network, "config", None)
        return getattr(self.network, "max_length", getattr(config, "max_position_embeddings", None))

    def logits(self, tokens: Tensor) -> Tensor:
        """Return ``(batch, length, vocab_size)``."""
        arguments = {"use_cache": False} if self._kind == "transformers" else {}
        found = self.network(tokens, **arguments)
        return getattr(found, "logits", found)

    def patterns(self, tokens: Tensor) -> list[Tensor]:
        """Return the attention ``(batch, heads, length, length)`` of each layer that has it.

        Rows sum to 1, or to less if a head also attends to a sink.

        Raises:
            MisconfigurationException: The network returns no weights.
        """
        if self._kind == "own":
            return list(self.network.attention_patterns(tokens))
        if self._kind == "torch":
            return self._patterns_of_torch(tokens)
        name = type(self.network).__name__
        with _eager_attention(self.network):
            output = self.network(tokens, output_attentions=True, use_cache=False)
        if not hasattr(output, "attentions"):
            raise MisconfigurationException(
                f"{name} has no attention: use a transformer, or a hybrid with attention layers"
            )
        length = tokens.shape[-1]
        heads = getattr(self.network.config, "num_attention_heads", None)
        found = [
            whole_heads(layer, heads, self.network)
            for layer in output.attentions or ()
            if layer is not None and layer.dim() == 4 and layer.shape[2:] == (length, length)
        ]
        if not found:
            setting = getattr(self.network.config, "_attn_implementation", "unknown")
            raise MisconfigurationException(
                f"{name} returns no attention weights with attn_implementation={setting!r}: load "
                "it with attn_implementation='eager', or use a model with softmax attention"
            )
        return found

    def layer_numbers(self, count: int) -> list[int]:
        """Return the model's number of each of the ``count`` layers with attention, from 0.

        Hybrid models have attention in some layers only. If their names or their configuration do
        not show which, the layers are counted.
        """
        config = getattr(self.network, "config", None)
        types = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
        by_type = [n for n, kind in enumerate(types or ()) if kind in _SOFTMAX_LAYERS]
        by_name = sorted(
            {
                int(number[0])
                for name, part in self.network.named_modules()
                if type(part).__name__.endswith("Attention")
                and (number := re.findall(r"(?<=\.)\d+(?=\.)", f".{name}."))
            }
        )
        for numbers in (by_type, by_name):
            if len(numbers) == count:
                return numbers
        return list(range(count))

    def matrices(self, heads: list[int]) -> list[HeadMatrices] | None:
        """Return the matrices of each layer, or None if their layout is unknown.

        Known layouts are ``v_proj`` and ``o_proj`` (LLaMA and similar models), ``c_attn`` and
        ``c_proj`` as GPT-2's ``Conv1D`` or nanoGPT's ``torch.nn.Linear``, and
        ``torch.nn.MultiheadAttention``.

        Args:
            heads: The number of heads of each layer.
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

    def output_projections(self, heads: list[int], tokens: Tensor) -> list[nn.Module] | None:
        """Return the module that projects the joined heads of each layer, found by hooks.

        It is the last linear layer that an attention module of transformers calls, whatever its
        name. None if there is not one for each layer, or its input is not divided into heads.

        Args:
            heads: The number of heads of each layer.
            tokens: Tokens ``(batch, length)`` for one pass.
        """
        found: dict[str, tuple[nn.Module, int]] = {}
        handles = []
        for name, part in self.network.named_modules() if self._kind == "transformers" else ():
            if not type(part).__name__.endswith("Attention") or _is_inside(name, found):
                continue
            found[name] = (part, 0)

            def take(module: nn.Module, arguments: Any, name: str = name) -> None:
                found[name] = (module, arguments[0].shape[-1])

            handles += [
                layer.register_forward_pre_hook(take)
                for layer in part.modules()
                if getattr(getattr(layer, "weight", None), "dim", lambda: 0)() == 2
            ]
        try:
            self.logits(tokens)
        finally:
            for handle in handles:
                handle.remove()
        called = list(found.values())
        sizes = [size for _, size in called]
        if len(called) != len(heads) or any(
            size == 0 or size % count for size, count in zip(sizes, heads, strict=True)
        ):
            return None
        # Under tensor parallelism the input contains only the heads of this rank.
        weights: list[Any] = [module.weight for module, _ in called]
        if any(
            is_sharded(weight) and size not in weight.shape
            for weight, size in zip(weights, sizes, strict=True)
        ):
            return None
        return [module for module, _ in called]

    def logits_without_head(
        self, tokens: Tensor, projection: nn.Module, head: int, heads: int
    ) -> Tensor:
        """Return logits of a pass in which a projection receives zeros from one head."""

        def remove(module: nn.Module, arguments: Any) -> Any:
            joined = arguments[0].unflatten(-1, (heads, -1)).clone()
            joined[..., head, :] = 0
            return joined.flatten(-2), *arguments[1:]

        handle = projection.register_forward_pre_hook(remove)
        try:
            return self.logits(tokens)
        finally:
            handle.remove()

    def logits_without_weights(self, tokens: Tensor, matrices: HeadMatrices, head: int) -> Tensor:
        """Return logits of a pass in which the output matrix of one head is zero."""
        with _without_head(matrices, head, self.network):
            return self.logits(tokens)

    def vocabulary(self) -> tuple[Tensor, Tensor] | None:
        """Return ``W_E`` ``(vocab_size, dim)`` and ``W_U`` ``(dim, vocab_size)``, if found."""
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
        return whole(embed.weight.detach()), whole(unembed.weight.detach()).T

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
        torch.backends.mha.set_fastpath_enabled(False)  # it bypasses the hooks
        try:
            self.network(tokens)
        finally:
            torch.backends.mha.set_fastpath_enabled(had_fast_path)
            for handle in handles:
                handle.remove()
        return patterns


def _is_inside(name: str, outer: Any) -> bool:
    return any(name.startswith(f"{one}.") for one in outer)


@contextmanager
def _without_head(matrices: HeadMatrices, head: int, network: nn.Module) -> Iterator[None]:
    """Run the block without the inputs of the output projection from ``head``.

    The weights are written in place, because FSDP2 ignores replaced ones, and restored bit for bit.
    """
    reshard(network)
    weight = network.get_parameter(matrices.output_name).detach()
    size, axis = matrices.output.shape[1], 0 if matrices.inputs_first else 1
    own, begin = local(weight), first_indices(weight)[axis]
    first, last = (min(max(n * size - begin, 0), own.shape[axis]) for n in (head, head + 1))
    part = own.narrow(axis, first, last - first)
    before = part.clone()
    part.zero_()
    try:
        yield
    finally:
        reshard(network)
        part.copy_(before)


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
        f"{type(module).__name__} has no readable attention: expected a model of transformers, "
        "torch.nn.MultiheadAttention, or a method attention_patterns(tokens) that returns (batch, "
        "heads, length, length) for each layer"
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
    # GPTBigCode has this flag, and stores query, key and value per head: another layout.
    if weight is None or weight.dim() != 2 or hasattr(part, "multi_query"):
        return None
    is_linear = isinstance(part.c_attn, nn.Linear)
    inputs, outputs = reversed(weight.shape) if is_linear else weight.shape
    # Also excludes cross-attention, and transposed weights outside nn.Linear.
    if outputs != 3 * inputs or isinstance(part.c_proj, nn.Linear) != is_linear:
        return None
    return "nanogpt" if is_linear else "gpt2"


def _matrices(prefix: str, layout: str, part: Any, heads: int) -> HeadMatrices:
    if layout == "gpt2":  # Conv1D: inputs along the first axis
        value = whole(part.c_attn.weight.detach()).chunk(3, dim=1)[2]
        output, name = whole(part.c_proj.weight.detach()), "c_proj.weight"
    elif layout == "nanogpt":  # the same names, outputs along the first axis
        value = whole(part.c_attn.weight.detach()).chunk(3)[2].T
        output, name = whole(part.c_proj.weight.detach()).T, "c_proj.weight"
    elif layout == "torch":
        value = whole(part.in_proj_weight.detach()).chunk(3)[2].T
        output, name = whole(part.out_proj.weight.detach()).T, "out_proj.weight"
    else:
        value = whole(part.v_proj.weight.detach()).T
        output, name = whole(part.o_proj.weight.detach()).T, "o_proj.weight"
    output = output.unflatten(0, (heads, -1))
    by_head = value.unflatten(1, (-1, output.shape[1])).transpose(0, 1)
    by_head = by_head.repeat_interleave(heads // len(by_head), dim=0)
    return HeadMatrices(by_head, output, prefix + name, layout == "gpt2")
