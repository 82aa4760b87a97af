"""Smaller initial weights of what adds to the residual stream (GPT-2, Radford et al., 2019)."""

import math
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

# How the names of the projections onto the residual stream end, without and with experts. With the
# name of the module around them where others, such as the head of BERT, share the last part.
_RESIDUAL_PROJECTIONS = {
    "attention": (
        "o_proj.weight",
        "attn.out_proj.weight",  # opt, gptj
        "attention.out_proj.weight",  # gpt_neo
        "attn.dense.weight",  # phi
        "attention.dense.weight",  # gpt_neox, bloom, falcon
        "attn.c_proj.weight",  # gpt2
    ),
    "feed-forward": (
        "down_proj.weight",
        "down_proj",
        "fc2.weight",  # opt, phi
        "mlp.dense_4h_to_h.weight",  # gpt_neox, bloom, falcon
        "mlp.c_proj.weight",  # gpt2, gpt_neo, starcoder2
        "mlp.fc_out.weight",  # gptj
    ),
}
_SCALED_BY_TRANSFORMERS = {
    "gpt2": ("c_proj.weight",),
    "gpt_bigcode": ("c_proj.weight",),
    "nanochat": ("o_proj.weight",),
}


@torch.no_grad()
def scale_residual_projections(network: nn.Module, config: Any) -> None:
    """Divide them by ``sqrt(2 * layers)``, unless transformers has done so.

    Args:
        network: of transformers, with its initial weights.
        config: its configuration.

    Warns:
        UserWarning: no projection of attention, or of the feed-forward part, is known by name.
    """
    scaled_already = _SCALED_BY_TRANSFORMERS.get(config.model_type, ())
    missing = set(_RESIDUAL_PROJECTIONS)
    for name, parameter in network.named_parameters():
        for part, endings in _RESIDUAL_PROJECTIONS.items():
            if name.endswith(endings):
                missing.discard(part)
                if not name.endswith(scaled_already):
                    parameter.div_(math.sqrt(2 * config.num_hidden_layers))
    if missing:
        rank_zero_warn(
            f"residual_scaling=True: no {' and no '.join(sorted(missing))} projection onto the "
            f"residual stream is known by name in {type(network).__name__}, so that these keep the "
            "deviation of all weights; set residual_scaling=False if that is meant"
        )
