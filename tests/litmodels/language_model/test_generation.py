"""Texts that a model continues and scores, and the folders it is exported to."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer
from small_language_models import SMALL, made
from torch.nn.functional import cross_entropy

from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.litmodels.language_model import GeneratedTexts


def quiet(folder, **arguments):
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    usual = {"accelerator": "cpu", "default_root_dir": folder, **dict.fromkeys(names, False)}
    return Trainer(**{**usual, **arguments})


def data_in(folder, tokenizer="bytes", **arguments):
    for part in ("train", "val"):
        (folder / part).mkdir(exist_ok=True)
        for number in range(8):
            text = "to be or not to be, café " * 20
            (folder / part / f"{number}.txt").write_text(text[: 100 + number], "utf-8")
    usual = {"vocab_size": 264, "context_length": 16, "data_dir": str(folder / "tokens")}
    return TokenDataModule(str(folder), tokenizer, **{**usual, **arguments})


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_predict_continues_prompts_as_the_exported_model_does(
    tmp_path, tokenizer, capsys, monkeypatch
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = ["to be", "", "café"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    data = data_in(tmp_path, tokenizer, prompts=str(file))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    module = made(vocab_size=264, generation={"max_new_tokens": 8}, compile=True)
    quiet(tmp_path, max_steps=4, limit_val_batches=0).fit(made(vocab_size=264), datamodule=data)
    quiet(tmp_path).validate(module, data, verbose=False)
    capsys.readouterr()
    trainer = quiet(tmp_path, callbacks=[GeneratedTexts(str(tmp_path / "out"))])
    found = [one for batch in trainer.predict(module, data) for one in batch]
    assert [one["prompt"] for one in found] == prompts
    printed = capsys.readouterr().out
    assert all(f"{one['prompt']}{one['text']}" in printed for one in found)
    written = (tmp_path / "out" / "generated.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in written] == found

    module.export(tmp_path / "exported")
    data.save_tokenizer(tmp_path / "exported")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    words = AutoTokenizer.from_pretrained(tmp_path / "exported")
    for one in found:
        tokens = words(one["prompt"] or words.eos_token, return_tensors="pt")["input_ids"].long()
        room = min(8, 16 - tokens.shape[1])
        with torch.no_grad():
            row = network.generate(tokens, max_new_tokens=room)[0, tokens.shape[1] :]
        assert words.decode(row, skip_special_tokens=True) == one["text"]
        assert one["stopped"] == (row[-1] == words.eos_token_id)


def test_generation_stops_at_the_end_of_a_document(tmp_path):
    data = data_in(tmp_path, prompts="to be")
    module = made()
    with torch.no_grad():
        module.network.lm_head.weight.zero_()  # all logits are equal, and token 0 is the first
    ((one,),) = quiet(tmp_path).predict(module, data)
    assert (one["text"], one["stopped"]) == ("", True)
    assert one["perplexity"] == pytest.approx(256)
    assert one["bits_per_byte"] == pytest.approx(8)


def test_predict_needs_no_text_if_the_tokenizer_is_given(tmp_path):
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").touch()
    data = TokenDataModule(str(tmp_path), prompts=["a", "b"], data_dir=str(tmp_path / "tokens"))
    assert len(quiet(tmp_path).predict(made(generation={"max_new_tokens": 2}), data)) == 2
    assert not (tmp_path / "tokens").exists()


def test_the_likelihood_of_a_text_is_that_of_its_tokens_each_counted_once(tmp_path):
    module, data = made(), data_in(tmp_path)
    module.config.eos_token_id = module.config.bos_token_id = 0
    text = "to be or not to be, café, that is the question of 2 windows"
    tokens = torch.tensor([0, *text.encode()])
    with torch.no_grad():
        nats = 0.0
        for place in range(1, len(tokens)):
            start = 0 if place <= 16 else 8 * math.ceil((place - 16) / 8)
            start = min(start, len(tokens) - 1 - 16)
            logits = module.network.eval()(tokens[None, start : start + 16]).logits[0]
            nats += float(cross_entropy(logits[place - start - 1], tokens[place]))
    found = module.score(text, data.transformers_tokenizer)
    assert found.num_tokens == found.num_bytes == len(tokens) - 1
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / found.num_tokens), rel=1e-5)
    with pytest.raises(ValueError, match="text=''"):
        module.score("", data.transformers_tokenizer)


def test_an_exported_folder_is_the_start_and_the_tokenizer_of_a_new_run(tmp_path):
    data = data_in(tmp_path)
    module = made()
    quiet(tmp_path, max_steps=1, limit_val_batches=0).fit(module, datamodule=data)
    module.export(tmp_path / "out")
    data.save_tokenizer(tmp_path / "out")
    again = data_in(tmp_path, str(tmp_path / "out"))
    following = CausalLM(pretrained=str(tmp_path / "out"))
    quiet(tmp_path, max_steps=1, limit_val_batches=0).fit(following, datamodule=again)
    assert torch.equal(again.train_dataset[0], data.train_dataset[0])


def test_a_prompt_longer_than_the_context_is_refused(tmp_path):
    data = data_in(tmp_path, prompts="to be or not to be")
    with pytest.raises(ValueError, match="a prompt has 18 tokens, but the model's context has 16"):
        quiet(tmp_path).predict(made(), data)


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        (None, "prompts=None: predict needs a text"),
        ("missing.txt", "prompts='missing.txt': there is no such file"),
        ("odd.jsonl", r"odd.jsonl, line 2: expected an object with the text 'prompt'"),
        ("empty.txt", "empty.txt has no line"),
    ],
)
def test_errors_name_the_prompts(tmp_path, monkeypatch, prompts, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "empty.txt").touch()
    data = data_in(tmp_path, prompts=prompts)
    with pytest.raises(ValueError, match=named):
        quiet(tmp_path).predict(made(config=SMALL), data)
