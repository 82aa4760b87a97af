"""Which block each parameter of a transformer belongs to: the types that differ in sharpness."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_plugins.optimizers.block_presets import BLOCKS, PRESETS, Block
from lightning_plugins.optimizers.parameter_names import NamedParameter, named_parameters_of


@dataclass(frozen=True)
class BlockParameter:
    """A parameter and its block; a fused projection has one block for each equal slice.

    Attributes:
        name: without the prefixes of wrappers.
        parameter: itself.
        blocks: one, or those of the slices of dimension ``output_dim``.
        output_dim: the dimension that the layer's outputs run over.
    """

    name: str
    parameter: Tensor
    blocks: tuple[Block, ...]
    output_dim: int

    @property
    def is_fused(self) -> bool:
        """Whether its slices belong to different blocks."""
        return len(self.blocks) > 1

    def slices(self, tensor: Tensor) -> list[tuple[Block, Tensor]]:
        """Views of a tensor of the parameter's shape, with the block of each."""
        if not self.is_fused:
            return [(self.blocks[0], tensor)]
        parts = tensor.chunk(len(self.blocks), dim=self.output_dim)
        return list(zip(self.blocks, parts, strict=True))


def blocks_of(
    params: Iterable[Any],
    needed_by: str,
    patterns: Mapping[str, str] | None = None,
    preset: str = "auto",
) -> list[BlockParameter]:
    """The block of every parameter, each parameter once and in the order given.

    A parameter's block is that of the first pattern of yours that is found in its name; else it
    follows from the type of its module, embedding or normalization; else from the preset's names.

    Args:
        params: of one module, with names or so that they can be found (``named_parameters_of``).
        needed_by: the class that asks, for messages.
        patterns: regular expression -> block, searched in the name in this order.
        preset: ``gpt2``, ``llama``, ``qwen2_moe``, ``vit``, or ``auto``, all of them in turn.

    Raises:
        ValueError: an unknown block or preset, a pattern that no name has, a parameter that nothing
            matches, or what ``named_parameters_of`` refuses.
    """
    patterns = dict(patterns or {})
    for pattern, block in patterns.items():
        if block not in BLOCKS:
            raise ValueError(
                f"patterns[{pattern!r}]={block!r} is no block: expected {', '.join(BLOCKS)}"
            )
    if preset != "auto" and preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: expected auto, {', '.join(PRESETS)}")
    named = named_parameters_of(params, needed_by)
    for pattern in patterns:
        if not any(re.search(pattern, one.name) for one in named):
            raise ValueError(
                f"patterns[{pattern!r}] matches none of the {len(named)} parameters, such as "
                f"{named[0].name!r}: correct or remove it"
            )
    found = [_block_of(one, patterns, preset) for one in named]
    unmatched = [one.name for one, blocks in zip(named, found, strict=True) if blocks is None]
    if unmatched:
        raise ValueError(
            f"{needed_by} does not know the block of {len(unmatched)} parameters: "
            f"{', '.join(unmatched[:8])}{', …' if len(unmatched) > 8 else ''}; name it, for "
            f"example patterns={{{re.escape(unmatched[0])!r}: 'ffn'}}"
        )
    return [
        BlockParameter(one.name, one.parameter, _slices_of(one, blocks), _output_dim(one))
        for one, blocks in zip(named, found, strict=True)
        if blocks is not None
    ]


def _block_of(
    one: NamedParameter, patterns: Mapping[str, str], preset: str
) -> str | tuple[Block, ...] | None:
    for pattern, block in patterns.items():
        if re.search(pattern, one.name):
            return block
    by_type = _block_of_module(one.owner)
    if by_type is not None:
        return by_type
    tables = PRESETS.values() if preset == "auto" else (PRESETS[preset],)
    for table in tables:
        for pattern, blocks in table:
            if re.search(pattern, one.name):
                return blocks
    return None


def _block_of_module(owner: nn.Module | None) -> Block | None:
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if owner is not None and re.search(r"Norm(\d?d|Act\w*)?$", type(owner).__name__):
        return "norm"
    return None


def _slices_of(one: NamedParameter, blocks: Any) -> tuple[Block, ...]:
    if isinstance(blocks, str):
        return (blocks,)  # type: ignore[return-value]
    if isinstance(one.parameter, DTensor):
        raise ValueError(
            f"{one.name!r} is one tensor of queries, keys and values, and sharded: their rates "
            "cannot be told apart; use a model with separate projections"
        )
    return tuple(blocks)


def _output_dim(one: NamedParameter) -> int:
    """0, except for Hugging Face's Conv1D, whose weight is (inputs, outputs).

    Where the module is not known, a fused projection shows it by its shape.
    """
    if one.parameter.dim() != 2:
        return 0
    if one.owner is None:
        inputs_first = ".c_attn." in one.name and one.parameter.shape[1] > one.parameter.shape[0]
        return int(inputs_first)
    return int(type(one.owner).__name__ == "Conv1D")
