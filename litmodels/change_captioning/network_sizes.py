"""Sizes of the vision-language network, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Size = Literal["tiny", "0.5b", "7b"]


@dataclass(frozen=True)
class NetworkSize:
    """What tells one size from another.

    Args:
        vision: of the SigLIP tower, by transformers' names.
        text: of the Qwen2 language model, by transformers' names.
        levels: hidden states of the tower that the difference module sees, the last one last.
        num_layers: of the difference module.
        num_heads: of the difference module.
        image_token_id: stands in the prompt for one token of an image.
    """

    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    levels: tuple[int, ...]
    num_layers: int
    num_heads: int
    image_token_id: int


# SigLIP-so400m at 384 pixels without its last layer and its head, neither of which LLaVA-OneVision
# uses; so level -1 here is -2 of the 27 layers in the authors' scripts, which name -11 -8 -5 -2.
_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
_QWEN2 = {
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
_PAPER: dict[str, Any] = {
    "levels": (-10, -7, -4, -1),
    "num_layers": 2,
    "num_heads": 9,
    "image_token_id": 151646,
}

SIZES: dict[Size, NetworkSize] = {
    "tiny": NetworkSize(
        vision={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 16,
            "vision_use_head": False,
        },
        text={
            "vocab_size": 256,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "initializer_range": 0.1,  # 0.02 suits a thousand channels; a small one learns faster
        },
        levels=(-3, -2, -1),
        num_layers=1,
        num_heads=4,
        image_token_id=3,
    ),
    "0.5b": NetworkSize(
        vision=_SO400M,
        text=_QWEN2
        | {
            "vocab_size": 152000,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        **_PAPER,
    ),
    "7b": NetworkSize(
        vision=_SO400M,
        text=_QWEN2
        | {
            "vocab_size": 152128,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
        **_PAPER,
    ),
}
