"""Conversion of the difference module's weights from the released CCExpert checkpoints."""

import re
from collections.abc import Mapping

from torch import Tensor

_PROJECTIONS = {"q_proj": "queries", "k_proj": "keys", "v_proj": "values", "out_proj": "output"}
_RENAMED = (
    (
        r"^expert_change_feature_extractor_model\.linear_mapping\.",
        "change_initialization.relevance.",
    ),
    (r"^expert_change_feature_extractor_model\.proj\.", "change_initialization.mixing."),
    (r"^ChangeAwareTokenReduce\.feature_map_level_gate\.", "level_weight."),
    (r"^ChangeAwareTokenReduce\.change_for_key_proj\.", "unused_projection."),
    (r"^ChangeAwareTokenReduce\.cross_attn\.", "unused_attention."),
    (r"\.change_self_attn\.", ".change_attention."),
    (r"\.cross_attn_change_to_imageABC\.", ".change_to_images."),
    (r"\.cross_attn_imageAB_to_change\.", ".images_to_change."),
    (r"\.mlp\.lin1\.", ".feed_forward.0."),
    (r"\.mlp\.lin2\.", ".feed_forward.2."),
    (r"\.norm1\.", ".norm_change."),
    (r"\.norm2\.", ".norm_images."),
    (r"\.norm3\.", ".norm_feed_forward."),
    (r"\.norm4\.", ".norm_unused."),
    (r"\.image_a_flag_embed\.weight$", ".flag_before"),
    (r"\.image_b_flag_embed\.weight$", ".flag_after"),
    (r"\.change_flag_embed\.weight$", ".flag_change"),
)


def from_released(weights: Mapping[str, Tensor], keep_unused: bool = False) -> dict[str, Tensor]:
    """Rename the weights of a released module to the names of ``DifferenceAwareIntegration``.

    They fit a module without a gate (``zero_gate=False``).

    Args:
        weights: Weights by their released names, such as ``layers.0.norm1.weight``, without the
            prefix ``model.vision_resampler.`` of a whole checkpoint.
        keep_unused: Keep the weights that only a module with ``keep_unused=True`` has.
    """
    renamed = {_renamed(name): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in renamed.items() if keep_unused or "unused" not in name}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    if name.startswith("unused_attention"):  # a torch.nn.MultiheadAttention in both
        return name
    return re.sub(
        r"\.(q_proj|k_proj|v_proj|out_proj)\.", lambda found: f".{_PROJECTIONS[found[1]]}.", name
    )
