"""Conversion of the parameter names of released checkpoints."""

import torch
from released_ccexpert_weights import released_weights

from lightning_plugins.nn.change import DifferenceAwareIntegration
from lightning_plugins.nn.change.released_weights import from_released


def test_released_names_map_one_to_one_to_the_parameters():
    weights = released_weights(8, 2)
    whole = DifferenceAwareIntegration(8, zero_gate=False, keep_unused=True)
    whole.load_state_dict(from_released(weights, keep_unused=True), strict=True)
    lean = DifferenceAwareIntegration(8, zero_gate=False)
    lean.load_state_dict(from_released(weights), strict=True)
    assert torch.equal(lean.layers[1].flag_after, weights["layers.1.image_b_flag_embed.weight"])
    assert torch.equal(lean.layers[0].norm_images.weight, weights["layers.0.norm2.weight"])
    found = lean.layers[1].images_to_change.keys.weight
    assert torch.equal(found, weights["layers.1.cross_attn_imageAB_to_change.k_proj.weight"])
