"""The configurations of the vision-language network, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Size = Literal["tiny", "0.5b", "7b"]


@dataclass(frozen=True)
class NetworkSize:
    """The configuration of one size.

    Args:
        vision: Arguments of transformers' ``SiglipVisionConfig``.
        text: Arguments of transformers' ``Qwen2Config``.
        levels: Indices of the tower's hidden states that enter the difference module, the last
            level last.
        num_layers: Layers of the difference module.
        num_heads: Attention heads of the difference module.
        image_token_id: Token id that the prompt contains for each token of an image.
    """

    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    levels: tuple[int, ...]
    num_layers: int
    num_heads: int
    image_token_id: int


# SigLIP-so400m at 384 pixels without its last layer and its head, which LLaVA-OneVision does not
# use. Level -1 here is therefore -2 of the 27 layers in the authors' scripts (-11 -8 -5 -2).
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
            "initializer_range": 0.1,  # 0.02 is for about 1000 channels; this learns faster
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
