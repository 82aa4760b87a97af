"""Floating-point operations of a transformer, from the shapes of its weights."""

import re
from typing import Any

from torch import nn

_EXPERT = re.compile(r"(?:^|\.)experts\.\d+(?:\.|$)")
_NUMBERS_OF_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def training_flops_per_token(network: nn.Module, context_length: int) -> float:
    """Count the operations of the forward and backward pass of one token.

    ``6 N + 12 L H T`` for N weights of matrices, L layers of attention with H features over all
    heads, and T tokens of context. Embeddings are looked up and not counted, the output head is.
    Of the experts of a mixture, those that a token uses are counted. Attention counts as if every
    token attended to all others, as is usual for this figure.

    Source: Chowdhery et al., PaLM, arXiv 2204.02311, appendix B.

    Args:
        network: A network; the attention is counted if it has a configuration of transformers.
        context_length: Tokens of a window.
    """
    config = getattr(network, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    share = _share_of_active_experts(config)
    weights = 0.0
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 3 or (parameter.dim() == 2 and _EXPERT.search(name)):
                weights += share * parameter.numel()
            elif parameter.dim() == 2:
                weights += parameter.numel()
    return 6 * weights + 12 * context_length * _attention_features(config)


def _share_of_active_experts(config: Any) -> float:
    active = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_k", None)
    total = next((n for k in _NUMBERS_OF_EXPERTS if (n := getattr(config, k, None))), None)
    return active / total if active and total else 1.0


def _attention_features(config: Any) -> int:
    """Return the features of all heads, summed over the layers with attention."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    types = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    layers = sum("attention" in t and "linear" not in t for t in types) if types else None
    return (config.num_hidden_layers if layers is None else layers) * heads * size
