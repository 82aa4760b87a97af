"""The pair network against transformers' LLaVA-OneVision with the same weights."""

import pytest
import torch

pytest.importorskip("transformers")

from released_ccexpert_weights import released_weights
from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration

from lightning_plugins.litmodels.change_captioning.network import build_network
from lightning_plugins.litmodels.change_captioning.released_checkpoints import load_released
from lightning_plugins.litmodels.change_captioning.sizes import SIZES

IMAGE = SIZES["tiny"].image_token_id


@pytest.fixture(scope="module")
def networks():
    """Return (pair network, plain network) with equal weights, and a batch of two pairs."""
    torch.manual_seed(0)
    pair = build_network("tiny").eval()
    plain = LlavaOnevisionForConditionalGeneration(pair.config).eval()
    state = {k: v for k, v in pair.state_dict().items() if not k.startswith("model.difference.")}
    plain.load_state_dict(state)
    pixels = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    sentence = [5, *[IMAGE] * 16, 6, *[IMAGE] * 16, 7, 8, 9]
    tokens = torch.tensor([sentence, [*sentence[:-1], 11]])
    return pair, plain, pixels, tokens


def plain_logits(plain, pixels, tokens):
    """Compute logits with transformers' own modules, without a newline token."""
    images = pixels.flatten(0, 1)
    sizes = torch.full((len(images), 2), 64)
    found = plain.model.get_image_features(
        images[:, None], sizes, batch_num_images=torch.tensor([2, 2]), return_dict=True
    )
    features = torch.cat([image[:-1] for image in found.pooler_output])  # without the newline token
    embedded = plain.get_input_embeddings()(tokens)
    embedded = embedded.masked_scatter((tokens == IMAGE)[..., None], features)
    return plain(inputs_embeds=embedded).logits


@torch.no_grad()
def test_with_a_zero_gate_the_logits_equal_the_plain_model_bit_for_bit(networks):
    pair, plain, pixels, tokens = networks
    found = pair(input_ids=tokens, pixel_values=pixels).logits
    assert torch.equal(found, plain_logits(plain, pixels, tokens))
    pair.model.difference.output_gate.data.fill_(0.1)
    opened = pair(input_ids=tokens, pixel_values=pixels).logits
    pair.model.difference.output_gate.data.zero_()
    assert not torch.allclose(opened, found, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_reads_each_pair_in_order(networks, num_beams):
    pair, _, pixels, tokens = networks
    pair.model.difference.output_gate.data.fill_(1.0)

    def first_logits(images, prompts):
        found = pair.generate(
            input_ids=prompts,
            pixel_values=images,
            max_new_tokens=1,
            num_beams=num_beams,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return found.logits[0][::num_beams]

    seen, turned = first_logits(pixels, tokens), first_logits(pixels.flip(1), tokens)
    alone = pair(input_ids=tokens[1:], pixel_values=pixels[1:]).logits[:, -1]
    pair.model.difference.output_gate.data.zero_()
    torch.testing.assert_close(seen[1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen, turned, atol=1e-5)


def losses_and_gradients(network, pixels, tokens, labels, full):
    """Compute the loss from the targets' logits, or from all logits with transformers' own code."""
    forward = LlavaOnevisionForConditionalGeneration.forward if full else type(network).forward
    network.zero_grad()
    loss = forward(network, input_ids=tokens, pixel_values=pixels, labels=labels).loss
    loss.backward()
    return loss.item(), {
        n: p.grad.clone() for n, p in network.named_parameters() if p.requires_grad
    }


def test_loss_and_gradients_equal_those_of_all_logits(networks):
    _, _, pixels, tokens = networks
    network = build_network("tiny", zero_gate=False, vocab_size=5000)
    labels = tokens.clone()
    labels[:, :-3] = -100
    labels[0, 4], labels[1, -1] = 7, -100
    few, grads = losses_and_gradients(network, pixels, tokens, labels, full=False)
    many, expected = losses_and_gradients(network, pixels, tokens, labels, full=True)
    assert few == pytest.approx(many, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-4, atol=1e-6)
    logits = network(input_ids=tokens, pixel_values=pixels, labels=labels).logits
    assert logits.shape == (6, 5000)


def test_activation_checkpointing_covers_tower_module_and_language_model(networks):
    _, _, pixels, tokens = networks
    network = build_network("tiny", zero_gate=False).train()
    plain = losses_and_gradients(network, pixels, tokens, tokens, full=False)
    network.gradient_checkpointing_enable({"use_reentrant": False})
    counts = dict.fromkeys(("vision_tower", "difference", "language_model"), 0)

    def count(part):
        counts[part] += 1

    for part in counts:
        layer = next(m for n, m in network.named_modules() if f"{part}." in n and n.endswith(".0"))
        inner = next(m for m in layer.modules() if isinstance(m, torch.nn.Linear))
        inner.register_forward_pre_hook(lambda *_, part=part: count(part))
    again = losses_and_gradients(network, pixels, tokens, tokens, full=False)
    assert set(counts.values()) == {2}  # each first layer ran once more
    assert again[0] == plain[0]
    for name, gradient in plain[1].items():
        torch.testing.assert_close(again[1][name], gradient)


def test_every_parameter_that_requires_a_gradient_has_one(networks):
    _, _, pixels, tokens = networks
    for difference in ("integrate", "alone", "none"):
        network = build_network("tiny", difference, zero_gate=False)
        network(input_ids=tokens, pixel_values=pixels, labels=tokens).loss.backward()
        lacking = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert lacking == []


@torch.no_grad()
def test_the_control_has_the_same_parameters_and_does_not_see_the_other_image(networks):
    _, _, pixels, _ = networks
    network = build_network("tiny", "alone", zero_gate=False).eval()
    size = sum(p.numel() for p in network.parameters())
    assert size == sum(p.numel() for p in build_network("tiny").parameters()) - 64  # the gate
    before, _, _ = network.model.pair_features(pixels[:1])
    same, other, _ = network.model.pair_features(torch.stack([pixels[0, 0], pixels[1, 0]])[None])
    assert torch.equal(before, same)
    assert not torch.allclose(other, network.model.pair_features(pixels[:1])[1], atol=1e-3)


def test_the_number_of_parameters_equals_the_published_model():
    with torch.device("meta"):
        plain = build_network("0.5b", "none")
        whole = build_network("0.5b", zero_gate=False)
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(plain) == pytest.approx(893.7e6, rel=2e-4)
    # 70.41 M without the 6.64 M that the released code never uses, and its two unused norms.
    assert count(whole) - count(plain) == pytest.approx(63.76e6, rel=1e-3)
    assert whole.tokens_per_image == 729


LLAVA_NEXT_NAMES = (
    ("model.difference.", None),
    ("model.image_newline", "model.image_newline"),
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("model.language_model.", "model."),
    ("lm_head.", None),
)
HUB_NAMES = (
    ("model.difference.", None),
    ("model.image_newline", "image_newline"),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def published(network, names):
    """Return copies of the network's weights with the names of a published layout."""
    weights = {}
    for name, weight in network.state_dict().items():
        prefix, new = next(pair for pair in names if name.startswith(pair[0]))
        if new is not None:
            weights[new + name.removeprefix(prefix)] = weight.clone()
    return weights


@pytest.mark.parametrize("names", [LLAVA_NEXT_NAMES, HUB_NAMES], ids=["lmms-lab", "llava-hf"])
def test_published_layouts_load_and_do_not_change_the_difference_module(tmp_path, names):
    source = build_network("tiny", "none")
    weights = published(source, names)
    beyond = next(name for name in weights if ".layers.2." in name and "vision" in name)
    weights[beyond.replace(".2.", ".3.")] = weights[beyond].clone()  # the 27th layer of SigLIP
    shards = list(weights.items())
    save_file(dict(shards[::2]), tmp_path / "model-1-of-2.safetensors")
    save_file(dict(shards[1::2]), tmp_path / "model-2-of-2.safetensors")
    target = build_network("tiny")
    drawn = target.model.difference.layers[0].flag_after.detach().clone()
    missing = load_released(target, tmp_path)
    assert all(name.startswith("model.difference.") for name in missing)
    for name, weight in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], weight), name
    assert torch.equal(target.model.difference.layers[0].flag_after, drawn)


def test_a_checkpoint_of_ccexpert_loads_into_a_network_without_a_gate(tmp_path):
    weights = published(build_network("tiny", "none"), LLAVA_NEXT_NAMES)
    module = {f"model.vision_resampler.{n}": w for n, w in released_weights(64, 1).items()}
    module["model.mm_cc_projector.0.weight"] = torch.zeros(2, 2)  # present, but never used
    save_file(weights | module, tmp_path / "model.safetensors")
    network = build_network("tiny", zero_gate=False)
    assert load_released(network, tmp_path) == []
    found = network.model.difference.layers[0].images_to_change.keys.weight
    name = "model.vision_resampler.layers.0.cross_attn_imageAB_to_change.k_proj.weight"
    assert torch.equal(found, module[name])
    with pytest.raises(ValueError, match="set zero_gate=False"):
        load_released(build_network("tiny"), tmp_path)


def test_a_folder_without_weights_and_a_checkpoint_of_another_size_raise_errors(tmp_path):
    network = build_network("tiny", "none")
    with pytest.raises(ValueError, match=r"has no \*\.safetensors"):
        load_released(network, tmp_path)
    weights = published(network, LLAVA_NEXT_NAMES)
    save_file(dict(list(weights.items())[:-1]), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks 1 weights"):
        load_released(network, tmp_path)
    weights["model.mm_projector.0.weight"] = torch.zeros(7, 64)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"linear_1\.weight has the shape \(7, 64\)"):
        load_released(network, tmp_path)


@pytest.mark.parametrize("wrong", [{"size": "1b"}, {"difference": "sum"}])
def test_an_unknown_size_or_difference_raises_an_error(wrong):
    with pytest.raises(ValueError, match="expected"):
        build_network(**wrong)
