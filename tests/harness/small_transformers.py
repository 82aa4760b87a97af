"""Untrained transformers with a few thousand parameters, and a plain training loop."""

import torch

SHAPES = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 24, "n_positions": 16}
    | {"bos_token_id": 0, "eos_token_id": 0}
    | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 24},
    "qwen2_moe": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    | {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 24, "num_experts": 3}
    | {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
    | {"shared_expert_intermediate_size": 8},
}
HEAD_DIM = {"gpt2": 8, "llama": 4, "qwen2_moe": 8}


def transformer(architecture, dtype=torch.float32):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SHAPES[architecture])
    if architecture == "qwen2_moe":  # grouped matrix products do not support double precision
        config._experts_implementation = "eager"
    return AutoModelForCausalLM.from_config(config).to(dtype)


def train(model, optimizer, steps, first=0):
    """Train on tokens that depend only on the step number."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(24, (2, 12), generator=generator)

        def closure(tokens=tokens):
            optimizer.zero_grad()
            loss = model(tokens, labels=tokens).loss
            loss.backward()
            return loss

        optimizer.step(closure)


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def largest_difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a.detach().double() - b.detach().double()).abs().max()) for a, b in pairs)
