"""Each parameter of common transformers has the block of its role."""

import pytest
import torch
from torch import nn

from lightning_plugins.optimizers import BlockwiseAdamW


def block_of_each(module):
    optimizer = BlockwiseAdamW(module.named_parameters())
    groups = optimizer.param_groups
    return {name: group["name"] for group in groups for name in group["param_names"]}


@pytest.mark.parametrize("kind", ["encoder", "whole"])
def test_torch_transformers(kind):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    module = (
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        if kind == "encoder"
        else nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    )
    roles = {"out_proj": "vo", "linear1": "ffn", "linear2": "ffn"}
    for name, block in block_of_each(module).items():
        part = name.split(".")[-2]
        # A fused projection is in the group of its first slice.
        expected = "norm" if "norm" in part else roles.get(part, "qk")
        assert block == expected, name


def test_attention_with_separate_projections_has_separate_blocks():
    module = nn.Module()
    module.self_attn = nn.MultiheadAttention(16, 2, kdim=8, vdim=8, bias=False, add_bias_kv=True)
    found = block_of_each(module)
    assert {name.partition(".")[2]: block for name, block in found.items()} == {
        "q_proj_weight": "qk",
        "k_proj_weight": "qk",
        "v_proj_weight": "vo",
        "out_proj.weight": "vo",
        "bias_k": "qk",
        "bias_v": "vo",
    }


SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "pad_token_id": 0,
}  # fmt: skip
FEWER_KEYS = {"num_key_value_heads": 2}
DEEPSEEK = {
    "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2,
    "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
MODELS = {
    "gpt_neox": ({}, {"attention.dense": "vo", "query_key_value": "vo", ".mlp.": "ffn"}),
    "phi": ({}, {"q_proj": "qk", "v_proj": "vo", "self_attn.dense": "vo", ".fc1.": "ffn"}),
    "phi3": (
        {"num_key_value_heads": 4},
        {"qkv_proj": "qk", "o_proj": "vo", "gate_up_proj": "ffn"},
    ),
    "phi3 with fewer keys": (FEWER_KEYS, {"qkv_proj": "vo", "o_proj": "vo"}),
    "opt": (
        {"ffn_dim": 64, "word_embed_proj_dim": 16},
        {"out_proj": "vo", "k_proj": "qk", ".fc2.": "ffn", "project_in": "embedding"},
    ),
    "bloom": ({}, {"query_key_value": "vo", "attention.dense": "vo", "dense_h_to_4h": "ffn"}),
    "falcon": ({}, {"query_key_value": "vo", "attention.dense": "vo", "dense_4h_to_h": "ffn"}),
    "gptj": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
        {"q_proj": "qk", "v_proj": "vo", "out_proj": "vo", "fc_in": "ffn"},
    ),
    "gemma": ({"head_dim": 8}, {"q_proj": "qk", "o_proj": "vo", "down_proj": "ffn"}),
    "qwen3": ({"head_dim": 8}, {"q_proj": "qk", "q_norm": "norm", "up_proj": "ffn"}),
    "deepseek_v3": (
        DEEPSEEK,
        {
            "q_b_proj": "qk",
            "kv_b_proj": "vo",
            "o_proj": "vo",
            "experts": "ffn",
            "mlp.gate.": "router",
        },
    ),
    "gpt_oss": (
        {"num_local_experts": 4, "head_dim": 8, **FEWER_KEYS},
        {"sinks": "qk", "router": "router", "experts": "ffn", "o_proj": "vo"},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_transformers(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    options, expected = MODELS[kind]
    config = AutoConfig.for_model(kind.split()[0], **{**SIZES, **options})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = block_of_each(model)
    for part, block in expected.items():
        assert {found[name] for name in found if part in name} == {block}, part
    norms = [name for name in found if "norm" in name or ".ln_" in name]
    assert {found[name] for name in norms} == {"norm"}
    assert "embedding" in found.values()
