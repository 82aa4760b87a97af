"""The language models have the papers' sizes; counted on the meta device."""

import math
from pathlib import Path

import pytest
import torch

from lightning_plugins.litmodels import CausalLM
from lightning_plugins.nn.parallel import elements_per_rank
from lightning_plugins.recipes import list_recipes, load_recipe

NAMES = [
    recipe.name
    for recipe in list_recipes()
    if recipe.name.startswith("language_model/") and not recipe.name.endswith("/tiny")
]

# Parameters in millions. The Blockwise LR paper gives the shapes; its labels are rounded (0.25B) or
# do not specify the vocabulary (90M, 1.1B). The GradPower paper gives only sizes; the shapes are
# ours.
MILLIONS = {
    "gpt2_openwebtext": 124,
    "llama_90m_openwebtext": 96,
    "llama_134m_minipile": 134,
    "llama_230m_openwebtext": 228,
    "llama_250m_minipile": 237,
    "llama_250m_openwebtext": 237,
    "llama_500m_minipile": 522,
    "llama_500m_openwebtext": 522,
    "llama_750m_openwebtext": 743,
    "llama_900m_openwebtext": 898,
    "llama_1100m_openwebtext": 1175,
    "llama_66m_c4": 66,
    "llama_200m_c4": 200,
    "llama_400m_c4": 400,
    "llama_1b_c4": 1000,
    "llama_1b_fsdp2_c4": 1000,
    "llama_2b_c4": 2050,
    "llama_7b_fsdp2_tp_c4": 6740,
    "qwen2_moe_1b_c4": 970,
    "qwen2_moe_2b_c4": 1950,
}


def test_every_recipe_has_an_expected_size():
    assert sorted(NAMES) == sorted(f"language_model/{name}" for name in MILLIONS)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_within_two_percent_of_the_stated_one(name):
    settings = load_recipe(name)["model"]["init_args"]
    with torch.device("meta"):
        model = CausalLM(
            *(settings[key] for key in ("architecture", "vocab_size", "context_length", "config"))
        )
        model.configure_model()
    count = sum(parameter.numel() for parameter in model.parameters())
    stated = MILLIONS[name.partition("/")[2]] * 1e6
    assert abs(count - stated) < 0.02 * stated
    assert count == counted_by_hand(settings)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_have_the_published_settings(name):
    recipe = load_recipe(name)
    trainer, model = recipe["trainer"], recipe["model"]["init_args"]
    data = recipe["data"]["init_args"]
    assert data["context_length"] == model["context_length"]
    shares = trainer.get("strategy", {}).get("init_args", {}).get("data_parallel_size", 1)
    assert shares * data["batch_size"] * trainer["accumulate_grad_batches"] == 300
    assert trainer["gradient_clip_val"] == 1.0
    assert model["optimizer"]["init_args"] == {
        "lr": 6e-4,
        "betas": [0.9, 0.95],
        "weight_decay": 0.1,
    }
    corpus = name.rpartition("_")[2]
    warmup = model["lr_scheduler"]["init_args"]["warmup"] * trainer["max_steps"]
    assert {"openwebtext": 1024, "minipile": 512, "c4": 256}[corpus] == data["context_length"]
    if corpus != "c4":  # we did not find the length of the runs on C4
        assert (trainer["max_steps"], warmup) in ((50_000, 1000), (30_000, 600))


@pytest.mark.parametrize("name", ["llama_1b_fsdp2_c4", "llama_7b_fsdp2_tp_c4"])
def test_the_memory_per_rank_on_the_page_is_that_of_the_recipe(name):
    recipe = load_recipe(f"language_model/{name}")
    settings, sizes = recipe["model"]["init_args"], recipe["trainer"]["strategy"]["init_args"]
    model = CausalLM(
        *(settings[key] for key in ("architecture", "vocab_size", "context_length", "config"))
    )
    elements = elements_per_rank(model._make_network, *sizes.values())
    assert recipe["trainer"]["devices"] == math.prod(sizes.values())
    row = f"| `language_model/{name}` | {' x '.join(map(str, sizes.values()))} |"
    page = Path(__file__, "../../../docs/scale.md").resolve().read_text("utf-8")
    assert f"{row} {elements / 1e6:.0f} M | {16 * elements / 1e9:.1f} GB |" in page


def counted_by_hand(settings):
    """Parameters of embedding, head, attention, feed-forward and norms, computed from the shape."""
    config, vocabulary = settings["config"], settings["vocab_size"]
    if settings["architecture"] == "gpt2":
        d, layers = config["n_embd"], config["n_layer"]
        layer = 12 * d * d + 13 * d  # weights and biases of both parts, two norms
        return (vocabulary + settings["context_length"]) * d + layers * layer + 2 * d
    d, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    kv = d * config.get("num_key_value_heads", heads) // heads
    attention = 2 * d * d + 2 * d * kv
    if settings["architecture"] == "qwen2_moe":
        attention += d + 2 * kv  # biases of queries, keys and values
        experts, inner = config["num_experts"], config["moe_intermediate_size"]
        shared = config["shared_expert_intermediate_size"]
        feed_forward = 3 * d * (experts * inner + shared) + experts * d + d
    else:
        feed_forward = 3 * d * config["intermediate_size"]
    return 2 * vocabulary * d + layers * (attention + feed_forward + 2 * d) + d
