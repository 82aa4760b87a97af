"""Low-rank updates: checkpoints without published weights, and export of merged weights."""

import dataclasses

import pytest
import torch
from lightning.pytorch import Trainer

pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import save_file
from transformers import LlavaOnevisionForConditionalGeneration

from lightning_plugins.litmodels.change_captioning import ChangeCaptioner
from lightning_plugins.litmodels.change_captioning.network import build_network
from lightning_plugins.litmodels.change_captioning.released_checkpoints import load_released
from lightning_plugins.litmodels.change_captioning.sizes import SIZES
from lightning_plugins.litmodels.change_captioning.word_tokenizer import WordTokenizer

QUIET = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


@pytest.fixture
def adapted(tmp_path, monkeypatch):
    """Return a captioner of a small 'published' size with trained updates, and its weights."""
    monkeypatch.setitem(SIZES, "0.5b", dataclasses.replace(SIZES["tiny"]))
    torch.manual_seed(0)
    weights = build_network("tiny", "none").state_dict()
    del weights["lm_head.weight"]  # tied
    (tmp_path / "published").mkdir()
    save_file(weights, tmp_path / "published" / "model.safetensors")
    model = ChangeCaptioner("0.5b", pretrained=str(tmp_path / "published"), lora_rank=2)
    model.configure_model()
    model._tokenizer = WordTokenizer(["a", "house"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval(), tmp_path


def logits(network):
    tokens = torch.tensor([[5, *[3] * 16, 6, *[3] * 16, 7, 8, 9]])
    pixels = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(input_ids=tokens, pixel_values=pixels * 2 - 1).logits


def saved(model, file):
    trainer = Trainer(accelerator="cpu", **QUIET)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(file)
    return torch.load(file, weights_only=True)["state_dict"]


def test_a_checkpoint_contains_trained_weights_only_and_restores_the_captioner(adapted):
    model, folder = adapted
    held = saved(model, folder / "last.ckpt")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert held.keys() == trained
    restored = ChangeCaptioner.load_from_checkpoint(folder / "last.ckpt", map_location="cpu")
    assert torch.equal(logits(restored.network.eval()), logits(model.network))


def test_a_checkpoint_without_an_update_is_refused(adapted):
    model, folder = adapted
    saved(model, folder / "last.ckpt")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    content["state_dict"].popitem()
    torch.save(content, folder / "last.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        ChangeCaptioner.load_from_checkpoint(folder / "last.ckpt", map_location="cpu")


def test_a_folder_that_the_user_did_not_name_is_not_taken_from_a_checkpoint(adapted):
    model, folder = adapted
    saved(model, folder / "last.ckpt")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["pretrained"] = str(folder)
    torch.save(content, folder / "last.ckpt")
    with pytest.raises(ValueError, match="pass pretrained="):
        ChangeCaptioner.load_from_checkpoint(folder / "last.ckpt", map_location="cpu")


def test_exported_weights_have_the_logits_of_the_updated_network(adapted):
    model, folder = adapted
    model.export(folder / "merged")
    merged = build_network("tiny").eval()
    assert load_released(merged, folder / "merged") == ["model.image_newline"][1:]
    torch.testing.assert_close(logits(merged), logits(model.network), rtol=0, atol=1e-5)
    assert (folder / "merged" / "config.json").is_file()
    assert (folder / "merged" / "words.json").is_file()


def test_transformers_reads_an_exported_folder(adapted):
    model, folder = adapted
    model.export(folder / "merged")
    plain = LlavaOnevisionForConditionalGeneration.from_pretrained(folder / "merged")
    merged = build_network("tiny")
    load_released(merged, folder / "merged")
    ours = dict(merged.named_parameters())
    for name, weight in plain.named_parameters():
        assert torch.equal(ours[name], weight), name
