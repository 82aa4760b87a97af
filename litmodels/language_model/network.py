"""Adapts networks of the transformers library to CausalLM."""

import math
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

Batch = Tensor | dict[str, Tensor]
"""Windows of tokens ``(batch, length + 1)``, or with documents apart a dictionary of three of that
shape: ``input_ids``, ``position_ids`` that start again with each document, and ``labels``, -100
where a token is no target."""


def inputs_and_targets(batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """What the network is called with, and the next tokens; all of shape ``(batch, length)``."""
    if isinstance(batch, Tensor):
        return {"input_ids": batch[:, :-1]}, batch[:, 1:]
    inputs = {name: batch[name][:, :-1] for name in ("input_ids", "position_ids")}
    return inputs, batch["labels"][:, 1:]


@torch.no_grad()
def keeps_documents_apart(network: nn.Module) -> bool:
    """Whether positions that start again keep a token from seeing the document before.

    Most attention of transformers reads it so (``create_causal_mask``); recurrent layers and older
    releases ignore it, without a word. Tried on two windows that differ in their first document.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    tokens = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1]], device=device)
    positions = torch.tensor([[0, 1, 0, 1]], device=device).expand(2, -1)
    one, other = network(input_ids=tokens, position_ids=positions).logits[:, 2:].float()
    network.train(was_training)
    return torch.allclose(one, other, rtol=1e-2, atol=1e-4 * float(one.abs().max()))


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
