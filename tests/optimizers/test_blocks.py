"""The block of every parameter of well-known transformers."""

import pytest
import torch
from small_transformers import transformer
from torch import nn

from lightning_plugins.optimizers.blocks import blocks_of


def blocks(model, **arguments):
    found = blocks_of(model.named_parameters(), "Test", **arguments)
    assert [one.name for one in found] == [name for name, _ in model.named_parameters()]
    return {one.name: one.blocks for one in found}


def expected_of(name):
    """Return the expected blocks, by rules that are independent of the package."""
    parts = set(name.replace("_weight", "").replace("_bias", "").split("."))
    rules = (
        ({"c_attn", "qkv", "in_proj"}, ("qk", "qk", "vo")),
        ({"q_proj", "k_proj"}, ("qk",)),
        ({"v_proj", "o_proj", "proj", "out_proj"}, ("vo",)),
        ({"gate", "shared_expert_gate"}, ("router",)),
        ({"wte", "wpe", "embed_tokens", "embeddings", "patch_embed"}, ("embedding",)),
        ({"cls_token", "pos_embed", "class_token", "pos_embedding", "conv_proj"}, ("embedding",)),
        ({"lm_head", "head", "heads", "classifier"}, ("head",)),
    )
    if parts & {"mlp"}:
        return ("router",) if parts & {"gate", "shared_expert_gate"} else ("ffn",)
    if "c_proj" in parts:
        return ("vo",)
    if "patch_embed" in parts:
        return ("embedding",)
    for words, block in rules:
        if parts & words:
            return block
    assert any("norm" in part or part.startswith("ln") for part in parts), name
    return ("norm",)


def vision_transformer(source):
    if source == "timm":
        return pytest.importorskip("timm").create_model("vit_tiny_patch16_224", depth=1)
    if source == "torchvision":
        from torchvision.models import VisionTransformer

        return VisionTransformer(32, 16, 1, 2, 32, 64)
    from transformers import ViTConfig, ViTForImageClassification

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    return ViTForImageClassification(ViTConfig(num_hidden_layers=1, **small))


@pytest.mark.parametrize("preset", ["auto", "own"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2_moe"])
def test_every_parameter_of_language_models_gets_its_block(architecture, preset):
    model = transformer(architecture)
    found = blocks(model, preset=architecture if preset == "own" else "auto")
    assert found == {name: expected_of(name) for name in found}


@pytest.mark.parametrize("source", ["timm", "torchvision", "transformers"])
def test_every_parameter_of_vision_transformers_gets_its_block(source):
    model = vision_transformer(source)
    for preset in ("auto", "vit"):
        found = blocks(model, preset=preset)
        assert found == {name: expected_of(name) for name in found}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2_moe"])
def test_blocks_are_found_by_name_without_the_module(architecture):
    model = transformer(architecture)
    by_name = blocks_of(list(model.named_parameters()), "Test")
    assert {one.name: one.blocks for one in by_name} == blocks(model)


def test_a_tied_head_counts_once_as_embedding():
    tied, untied = transformer("gpt2"), transformer("llama")
    assert "head" not in {block for b in blocks(tied).values() for block in b}
    assert blocks(untied)["lm_head.weight"] == ("head",)


def test_a_fused_projection_has_three_equal_slices():
    model = transformer("gpt2")
    attention = model.transformer.h[0].attn.c_attn
    found = {one.name: one for one in blocks_of(model.named_parameters(), "Test")}
    weight = found["transformer.h.0.attn.c_attn.weight"]
    parts = weight.slices(attention.weight)
    assert [block for block, _ in parts] == ["qk", "qk", "vo"]
    for index, (_, part) in enumerate(parts):  # Conv1D: outputs are columns
        assert torch.equal(part, attention.weight[:, 16 * index : 16 * (index + 1)])


def test_patterns_precede_the_module_type_which_precedes_the_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = nn.ModuleDict({"table": nn.Embedding(3, 2), "scale": nn.LayerNorm(2)})

    assert set(blocks(Odd()).values()) == {("embedding",), ("norm",)}
    assert blocks(Odd(), patterns={"table": "other"})["mlp.table.weight"] == ("other",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": {"nowhere": "ffn"}}, "'nowhere'.*matches none"),
        ({"patterns": {"weight": "fnn"}}, "'fnn' is not a block.*ffn"),
        ({"preset": "bert"}, "preset='bert'.*llama"),
    ],
)
def test_invalid_patterns_and_presets_raise_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        blocks(transformer("llama"), **arguments)


def test_the_error_for_an_unknown_block_suggests_a_pattern():
    model = nn.ModuleDict({"norm": nn.LayerNorm(2), "extra": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"2 parameters: extra.weight, extra.bias.*patterns="):
        blocks(model)
