"""The routing that hooks read is what the experts of each architecture received."""

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_plugins.nn.moe.routers import find_routers, recorded_routings, selection_bias

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 32,
    "pad_token_id": None,
    "use_cache": False,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
GROUPED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 0,
    "n_shared_experts": 1,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 16}
JAMBA = {
    **EXPERTS,
    "mamba_d_state": 8,
    "attn_layer_period": 2,
    "attn_layer_offset": 0,
    "expert_layer_period": 1,
    "expert_layer_offset": 0,
    "use_mamba_kernels": False,
}
ERNIE = {
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_intermediate_size": 16,
    "moe_layer_start_index": 0,
}
QWEN3_NEXT = {
    **SHARED,
    "head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "layer_types": ["full_attention", "linear_attention"],
}
LLAMA4 = {
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "head_dim": 8,
    "intermediate_size_mlp": 32,
    "interleave_moe_layer_step": 1,
}
ARCHITECTURES = {
    "mixtral": LOCAL,
    "qwen2_moe": SHARED,
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS,
    "flex_olmo": EXPERTS,
    "deepseek_v2": {**LATENT, **GROUPED},
    "deepseek_v3": {**LATENT, **GROUPED},
    "glm4_moe": {**GROUPED, "head_dim": 8},
    "glm4_moe_lite": {**LATENT, **GROUPED},
    "dots1": {**GROUPED, "head_dim": 8},
    "granitemoe": LOCAL,
    "granitemoeshared": {**LOCAL, "shared_intermediate_size": 16},
    "phimoe": LOCAL,
    "jamba": JAMBA,
    "ernie4_5_moe": ERNIE,
    "minimax": {**LOCAL, "head_dim": 8, "layer_types": ["full_attention", "linear_attention"]},
    "minimax_m2": {**LOCAL, "head_dim": 8},
    "hunyuan_v1_moe": {"num_experts": 4, "moe_topk": 2, "head_dim": 8},
    "gpt_oss": {**LOCAL, "head_dim": 8},
    "lfm2_moe": {**EXPERTS, "num_dense_layers": 0, "layer_types": ["full_attention"] * 2},
    "qwen3_next": QWEN3_NEXT,
    "afmoe": {**EXPERTS, "head_dim": 8, "num_dense_layers": 0, "num_shared_experts": 1},
    "laguna": EXPERTS,
    "hy_v3": EXPERTS,
}
BIASED = {
    "deepseek_v3",
    "glm4_moe",
    "glm4_moe_lite",
    "dots1",
    "ernie4_5_moe",
    "minimax_m2",
    "lfm2_moe",
    "afmoe",
    "laguna",
    "hy_v3",
}


def network_of(architecture, arguments):
    if architecture not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not have {architecture}")
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SIZES, **arguments})
    network = AutoModelForCausalLM.from_config(config).eval()
    for name in find_routers(network):
        bias = selection_bias(network, name)
        if bias is not None:  # it changes the selection, not the weights
            bias.copy_(torch.randn(len(bias)))
    return network


def arguments_of_experts(network):
    """Collect the indices and weights that each layer's experts receive."""
    received = []

    def record(module, arguments, named):
        given = [a for a in (*arguments, *named.values()) if isinstance(a, torch.Tensor)]
        (experts,) = (a for a in given if not a.is_floating_point())
        weights = next(a for a in given if a.shape == experts.shape and a.is_floating_point())
        received.append((experts, weights))

    for name, module in network.named_modules():
        if name.endswith(".experts"):
            module.register_forward_pre_hook(record, with_kwargs=True)
    return received


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_routing_is_that_of_the_model(architecture):
    network = network_of(architecture, ARCHITECTURES[architecture])
    received = arguments_of_experts(network)
    tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), recorded_routings(network) as routings:
        network(input_ids=tokens)
    assert len(routings) == len(received) == len(find_routers(network)) > 0
    for routing, (experts, weights) in zip(routings, received, strict=True):
        assert torch.equal(routing.experts, experts)
        assert torch.equal(routing.weights, weights)
        assert routing.logits.shape == (32, 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_biases_of_the_selection_are_found(architecture):
    network = network_of(architecture, ARCHITECTURES[architecture])
    biases = [selection_bias(network, name) for name in find_routers(network)]
    assert all((bias is not None) == (architecture in BIASED) for bias in biases)


def test_scores_of_all_experts_are_read_as_in_llama_4():
    network = network_of("llama4_text", LLAMA4)
    tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), recorded_routings(network) as routings:
        network(input_ids=tokens)
    assert len(routings) == 2
    for routing in routings:
        best, experts = routing.logits.topk(1)
        assert torch.equal(routing.experts, experts)
        torch.testing.assert_close(routing.weights, best.sigmoid())


def test_sorted_rows_are_read_as_in_jetmoe():
    network = network_of("jetmoe", {**LOCAL, "kv_channels": 8})
    tokens = torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), recorded_routings(network) as routings:
        network(input_ids=tokens)
    assert len(routings) == 4  # two layers, each with experts of attention and of the perceptron
    for routing in routings:
        best, experts = routing.logits.topk(2)
        assert torch.equal(routing.experts, experts)
        torch.testing.assert_close(routing.weights, best.softmax(dim=-1))
