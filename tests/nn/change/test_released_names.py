"""Names of released checkpoints reach the parameters that they belong to."""

import torch

from lightning_plugins.nn.change import DifferenceAwareIntegration
from lightning_plugins.nn.change.released_names import from_released

ATTENTIONS = ("change_self_attn", "cross_attn_change_to_imageABC", "cross_attn_imageAB_to_change")


def released_weights(dim, num_layers):
    """Random weights under the names and with the shapes of the released module."""
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


def test_all_names_find_a_place_and_no_place_stays_empty():
    weights = released_weights(8, 2)
    whole = DifferenceAwareIntegration(8, zero_gate=False, keep_unused=True)
    whole.load_state_dict(from_released(weights, keep_unused=True), strict=True)
    lean = DifferenceAwareIntegration(8, zero_gate=False)
    lean.load_state_dict(from_released(weights), strict=True)
    assert torch.equal(lean.layers[1].flag_after, weights["layers.1.image_b_flag_embed.weight"])
    assert torch.equal(lean.layers[0].norm_images.weight, weights["layers.0.norm2.weight"])
    found = lean.layers[1].images_to_change.keys.weight
    assert torch.equal(found, weights["layers.1.cross_attn_imageAB_to_change.k_proj.weight"])
