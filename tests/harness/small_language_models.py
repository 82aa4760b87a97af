"""Untrained ``CausalLM`` modules with a few thousand parameters."""

import torch

from lightning_plugins.litmodels import CausalLM

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
MOE = {
    **SMALL,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
MIXTRAL = {
    **SMALL,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
GPT_OSS = {**MIXTRAL, "head_dim": 8}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2}


def made(architecture="llama", config=None, seed=0, **arguments):
    torch.manual_seed(seed)
    module = CausalLM(architecture, context_length=16, config=config or SMALL, **arguments)
    module.configure_model()
    return module
