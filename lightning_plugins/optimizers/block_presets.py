"""Which block a parameter belongs to, by the names that well-known transformers give.

Patterns are searched in the parameter's name in order; the first that matches decides. A block
that is a tuple divides the output dimension evenly: the fused projections to queries, keys and
values, whose memory holds them one after the other.
"""

from typing import Literal, get_args

Block = Literal["embedding", "qk", "vo", "ffn", "norm", "head", "router", "other"]

BLOCKS: tuple[Block, ...] = get_args(Block)

Pattern = tuple[str, Block | tuple[Block, ...]]

_FUSED_QKV: tuple[Block, ...] = ("qk", "qk", "vo")

# Also Mistral, Qwen2 and Qwen3.
_LLAMA: tuple[Pattern, ...] = (
    (r"\bself_attn\.(q|k)_proj\.", "qk"),
    (r"\bself_attn\.(v|o)_proj\.", "vo"),
    (r"(\b|_)norm\.|layernorm\.", "norm"),
    (r"\bmlp\.(gate|up|down)_proj\.", "ffn"),
    (r"\bembed_tokens\.", "embedding"),
    (r"\blm_head\.", "head"),
)

# In the order in which "auto" tries them: GPT-2's pattern for feed-forward layers is the widest.
PRESETS: dict[str, tuple[Pattern, ...]] = {
    "qwen2_moe": (
        (r"\bmlp\.(gate|shared_expert_gate)\.", "router"),
        (r"\bmlp\.(experts|shared_expert)\.", "ffn"),
        *_LLAMA,
    ),
    "llama": _LLAMA,
    # nanoGPT and Hugging Face, whose c_attn is fused and c_proj stands in two places.
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
