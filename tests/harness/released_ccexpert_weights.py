"""Random weights with the names of the released CCExpert checkpoints, at any size."""

import torch

ATTENTIONS = ("change_self_attn", "cross_attn_change_to_imageABC", "cross_attn_imageAB_to_change")


def released_weights(dim, num_layers):
    """Return random weights with the names and shapes of the released module."""
    gate, reduce = "ChangeAwareTokenReduce.feature_map_level_gate", "ChangeAwareTokenReduce"
    linear = {
        "expert_change_feature_extractor_model.linear_mapping": (dim, 2 * dim),
        "expert_change_feature_extractor_model.proj": (dim, 3 * dim),
        f"{gate}.0": (dim, 3 * dim),
        f"{gate}.2": (1, dim),
        f"{reduce}.change_for_key_proj": (dim, dim),
        f"{reduce}.cross_attn.out_proj": (dim, dim),
    }
    weights = {
        f"{reduce}.cross_attn.in_proj_weight": torch.randn(3 * dim, dim),
        f"{reduce}.cross_attn.in_proj_bias": torch.randn(3 * dim),
    }
    for layer in (f"layers.{index}" for index in range(num_layers)):
        for attention in ATTENTIONS:
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear[f"{layer}.{attention}.{projection}"] = (dim, dim)
        linear |= {f"{layer}.mlp.lin1": (4 * dim, dim), f"{layer}.mlp.lin2": (dim, 4 * dim)}
        for norm in ("norm1", "norm2", "norm3", "norm4"):
            weights |= {f"{layer}.{norm}.{part}": torch.randn(dim) for part in ("weight", "bias")}
        for flag in ("image_a", "image_b", "change"):
            weights[f"{layer}.{flag}_flag_embed.weight"] = torch.randn(1, dim)
    for name, shape in linear.items():
        weights |= {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}
    return weights
