"""The type of block of each parameter of a transformer, such as embedding, norm or feed-forward."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from lightning_plugins.nn.shards import first_indices, local
from lightning_plugins.optimizers.parameter_names import NamedParameter, named_parameters_of

Block = Literal["embedding", "qk", "vo", "ffn", "norm", "head", "router", "other"]

BLOCKS: tuple[Block, ...] = get_args(Block)

Pattern = tuple[str, Block | tuple[Block, ...]]

# A tuple divides the output dimension evenly: fused projections store queries, keys and values
# one after another.
_FUSED_QKV: tuple[Block, ...] = ("qk", "qk", "vo")

# Projections that share one tensor in another order (per head, or with fewer keys than queries)
# have one rate, the lower one of the blocks in them.
_MIXED: Block = "vo"

# Also Mistral, Gemma, Qwen2 and Qwen3.
_LLAMA: tuple[Pattern, ...] = (
    (r"\bself_attn\.(q|k)_proj\.", "qk"),
    (r"\bself_attn\.(v|o)_proj\.", "vo"),
    (r"(\b|_)norm\.|layernorm\.", "norm"),
    (r"\bmlp\.(gate|up|down)_proj\.", "ffn"),
    (r"\bembed_tokens\.", "embedding"),
    (r"\blm_head\.", "head"),
)

# Patterns are searched in the parameter's name; the first match decides. "auto" tries the presets
# in this order: the feed-forward pattern of GPT-2 matches the most names.
PRESETS: dict[str, tuple[Pattern, ...]] = {
    "qwen2_moe": (
        (r"\bmlp\.(gate|shared_expert_gate)\.", "router"),
        (r"\bmlp\.(experts|shared_expert)\.", "ffn"),
        *_LLAMA,
    ),
    "llama": _LLAMA,
    # torch.nn.Transformer and its layers.
    "torch": (
        (r"\b(self|multihead)_attn\.in_proj_(weight|bias)\b", _FUSED_QKV),
        (r"\b(self|multihead)_attn\.([qk]_proj_weight|bias_k)\b", "qk"),
        (r"\b(self|multihead)_attn\.(v_proj_weight|bias_v|out_proj\.\w+)\b", "vo"),
        (r"\blinear[12]\.", "ffn"),
    ),
    # GPT-J, GPT-NeoX, OPT, Phi, Phi-3, BLOOM, Falcon, DeepSeek-V3 and gpt-oss in transformers.
    "decoder": (
        (r"\battn\.[qk]_proj\.|\bself_attn\.(q_a_proj|q_b_proj|sinks)\b", "qk"),
        (r"\b(self_)?attn\.(v_proj|out_proj|dense)\.", "vo"),
        (r"\bself_attn\.qkv_proj\.", _FUSED_QKV),
        (r"\bquery_key_value\.|\bself_attn\.kv_(a_proj_with_mqa|b_proj)\.", _MIXED),
        (r"\b(self_)?attention\.dense\.", "vo"),
        (r"\bmlp\.router\.", "router"),
        (r"\b(fc1|fc2)\.|\bmlp\.(fc_in|fc_out|gate_up_proj|dense_\w+|shared_experts)\.", "ffn"),
        (r"\bproject_(in|out)\.|\b(word_embeddings|embed_in)\.", "embedding"),
        (r"\bembed_out\.", "head"),
    ),
    # nanoGPT and Hugging Face: c_attn is fused, and c_proj occurs in attention and feed-forward.
    "gpt2": (
        (r"\battn\.c_attn\.", _FUSED_QKV),
        (r"\battn\.(q|k)_attn\.", "qk"),
        (r"\battn\.(v_attn|c_proj)\.", "vo"),
        (r"\bmlp\.", "ffn"),
        (r"\b(wte|wpe)\.", "embedding"),
        (r"\bln_(\d|f)\b", "norm"),
        (r"\blm_head\.", "head"),
    ),
    # timm, torchvision and Hugging Face.
    "vit": (
        (r"\battn\.qkv\.|\bself_attention\.in_proj_(weight|bias)\b", _FUSED_QKV),
        (r"\battention\.(\w+\.)*(q_proj|k_proj|query|key)\.", "qk"),
        (r"\battention\.(\w+\.)*(v_proj|o_proj|value|dense)\.", "vo"),
        (r"\battn\.proj\.|\bself_attention\.out_proj\.", "vo"),
        (r"\bmlp\.|\b(intermediate|output)\.dense\.", "ffn"),
        (r"\b(cls|mask|reg|dist)_token\b|class_token\b|pos_embed|position_embedding", "embedding"),
        (r"\bpatch_embed|\bconv_proj\.", "embedding"),
        (r"norm\d?\.|layernorm\w*\.|\bln(_\d)?\.", "norm"),
        (r"^(head|heads|classifier)\b|\.(head|heads|classifier)\.", "head"),
    ),
}


@dataclass(frozen=True)
class BlockParameter:
    """A parameter and its block; a fused projection has one block per equal slice.

    Attributes:
        name: The name without the prefixes of wrappers.
        parameter: The parameter.
        blocks: One block, or the blocks of the slices along ``output_dim``.
        output_dim: The dimension of the layer's outputs.
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
        """Return this rank's part of each slice as a view, with its block.

        Args:
            tensor: A tensor of the parameter's shape and placements, or this rank's part of one.
        """
        part = local(tensor)
        if not self.is_fused:
            return [(self.blocks[0], part)]
        size = self.parameter.shape[self.output_dim] // len(self.blocks)
        first = first_indices(self.parameter)[self.output_dim]
        # Slice i has the outputs [i·size, (i + 1)·size); this part begins with output `first`.
        bounds = [
            min(max(index * size - first, 0), part.shape[self.output_dim])
            for index in range(len(self.blocks) + 1)
        ]
        return [
            (block, part.narrow(self.output_dim, start, stop - start))
            for block, start, stop in zip(self.blocks, bounds, bounds[1:], strict=False)
        ]


def blocks_of(
    params: Iterable[Any],
    needed_by: str,
    patterns: Mapping[str, str] | None = None,
    preset: str = "auto",
) -> list[BlockParameter]:
    """Return the block of every parameter, in the given order.

    The first of ``patterns`` found in the parameter's name decides. Otherwise the type of the
    module that owns it decides (embedding or normalization), then the names of the preset.

    Args:
        params: The parameters of one module, with names or so that their names can be found (see
            ``named_parameters_of``).
        needed_by: The class that calls this, for error messages.
        patterns: Block per regular expression, searched in the name in this order.
        preset: ``gpt2``, ``llama``, ``qwen2_moe``, ``torch``, ``decoder``, ``vit``, or ``auto``,
            which tries all of them.

    Raises:
        ValueError: A block or preset is unknown, a pattern matches no name, no rule matches a
            parameter, or ``named_parameters_of`` raised it.
    """
    patterns = dict(patterns or {})
    for pattern, block in patterns.items():
        if block not in BLOCKS:
            raise ValueError(
                f"patterns[{pattern!r}]={block!r} is not a block: expected {', '.join(BLOCKS)}"
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
    # Fewer heads of keys and values than of queries: the thirds are not the three projections.
    if ".qkv_proj." in one.name and one.parameter.dim() == 2:
        outputs, inputs = one.parameter.shape
        if outputs != 3 * inputs:
            return (_MIXED,)
    return tuple(blocks)


def _output_dim(one: NamedParameter) -> int:
    """Return 0, or 1 for Hugging Face's Conv1D, whose weight has the shape (inputs, outputs).

    If the module is not known, the shape of a fused projection decides.
    """
    if one.parameter.dim() != 2:
        return 0
    if one.owner is None:
        inputs_first = ".c_attn." in one.name and one.parameter.shape[1] > one.parameter.shape[0]
        return int(inputs_first)
    return int(type(one.owner).__name__ == "Conv1D")
