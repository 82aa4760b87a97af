"""ChangeCaptioner: tokenizer, targets, captions, logged scores, callbacks and errors."""

import json
import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import MisconfigurationException

pytest.importorskip("transformers")
pytest.importorskip("PIL")

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.litmodels.change_captioning import (
    CaptionPictures,
    CaptionWriter,
    ChangeCaptioner,
)
from lightning_plugins.litmodels.change_captioning.prompt import QUESTION, Prompt
from lightning_plugins.litmodels.change_captioning.word_tokenizer import WordTokenizer


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tiles"))


def data(tiles, **arguments):
    sizes = {"num_train": 8, "num_val": 3, "num_test": 2, "batch_size": 4, "data_dir": tiles}
    return ChangeCaptionDataModule(**(sizes | arguments))


def trainer(folder, **arguments):
    defaults = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(defaults | arguments))


def test_words_are_ordered_by_frequency_and_decoded_again():
    words = WordTokenizer.learned(["a house, a road", "a House is built."], vocab_size=8)
    assert words.words == ["a", "house", ",", "."]
    ids = words.encode("A house, a villa.")
    assert ids == [4, 5, 6, 4, words.unknown_id, 7]
    assert words.decode([*ids, words.end_id, 5]) == "a house , a."


def test_words_that_do_not_fit_are_counted_in_a_warning():
    with pytest.warns(UserWarning, match=r"vocab_size=6: 2 of 4 words, 25.00% of the texts"):
        words = WordTokenizer.learned(["a house a house", "a house is built"], vocab_size=6)
    assert words.words == ["a", "house"]


def test_only_the_answer_and_its_end_token_are_targets_without_chat_markers():
    words = WordTokenizer.learned([QUESTION, "a house is built"], vocab_size=64)
    prompt = Prompt(words, image_token_id=3, tokens_per_image=4)
    assert prompt.ids.count(3) == 8
    batch = prompt.with_answers(["a house is built", "a house"], torch.device("cpu"))
    length = len(prompt.ids)
    long, short = words.encode("a house is built"), words.encode("a house")
    assert batch["labels"][0].tolist() == [-100] * length + [*long, words.end_id]
    assert batch["labels"][1].tolist() == [-100] * length + [*short, words.end_id, -100, -100]
    assert batch["attention_mask"][1].tolist() == [1] * (length + 3) + [0, 0]
    assert batch["input_ids"][:, :length].tolist() == [prompt.ids] * 2
    assert prompt.questions(2, torch.device("cpu")).tolist() == [prompt.ids] * 2


@pytest.fixture(scope="module")
def trained(tiles, tmp_path_factory):
    """Return a captioner after 30 steps on eight pairs, its data, checkpoint and metrics."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module = ChangeCaptioner(
        max_new_tokens=16, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.0)
    )
    pairs = data(tiles, caption_mode="first", batch_size=8)
    run = trainer(folder, max_epochs=30, check_val_every_n_epoch=30, gradient_clip_val=1.0)
    run.fit(module, datamodule=pairs)
    run.save_checkpoint(folder / "run.ckpt")
    return module.eval(), pairs, folder / "run.ckpt", dict(run.callback_metrics)


def test_training_reduces_the_loss_and_captions_contain_learned_words_only(trained):
    module, pairs, _, logged = trained
    assert logged["train/loss"] < 2 < math.log(256)
    (batch,) = pairs.train_dataloader()
    known = {word for caption in pairs.training_captions() for word in caption.strip(".").split()}
    for caption in module.generate(batch):
        assert set(caption.replace(".", "").split()) <= known


def test_captions_do_not_depend_on_the_batch_and_beam_search_runs(trained):
    module, pairs, _, _ = trained
    (batch,) = pairs.train_dataloader()
    together = module.generate(batch)
    alone = [module.generate({"images": images[None]})[0] for images in batch["images"][:2]]
    assert alone == together[:2]
    module.hparams["num_beams"] = 3
    beams = module.generate(batch)
    module.hparams["num_beams"] = 1
    assert len(beams) == len(together)
    assert all(isinstance(caption, str) for caption in beams)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_score_is_the_mean_probability_of_the_captions_tokens(trained, num_beams):
    module, pairs, _, _ = trained
    (batch,) = pairs.train_dataloader()
    module.hparams["num_beams"] = num_beams
    found = module.generate_with_scores(batch)
    module.hparams["num_beams"] = 1
    compared = 0
    for images, (caption, score) in zip(batch["images"], found, strict=True):
        if len(module._prompt().tokenizer.encode(caption)) == 16:  # was cut, without an end
            continue
        with torch.no_grad():
            loss = module.loss({"images": images[None]}, [caption])
        assert score == pytest.approx(math.exp(-loss), rel=1e-4)
        compared += 1
    assert compared


def test_all_scores_of_the_validation_part_are_logged(trained):
    logged = trained[3]
    names = {"loss", "s_m", "bleu_1", "bleu_4", "rouge_l", "cider_d", "meteor_exact_stem"}
    names |= {"change_accuracy", "constant_s_m"}
    assert {f"val/{name}" for name in names} <= logged.keys()
    assert all(math.isfinite(value) for value in logged.values())


def test_a_restored_captioner_generates_the_same_captions(trained, tmp_path):
    module, pairs, path, _ = trained
    loaded = ChangeCaptioner.load_from_checkpoint(path, weights_only=True, map_location="cpu")
    (batch,) = pairs.train_dataloader()
    assert loaded.eval().generate(batch) == module.generate(batch)


def test_predict_writes_and_prints_the_caption_of_a_given_pair(trained, tmp_path, capsys):
    module, pairs, _, _ = trained
    record = pairs.records("test")[0]
    own = ChangeCaptionDataModule(before=str(record.before), after=str(record.after))
    run = trainer(tmp_path / "log", callbacks=[CaptionWriter()])
    run.predict(module, datamodule=own)
    (line,) = (tmp_path / "log" / "captions.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == record.id
    assert isinstance(json.loads(line)["caption"], str)
    assert line in capsys.readouterr().out


def test_the_difference_map_is_zero_for_equal_images_and_largest_at_a_changed_patch(trained):
    module, _, _, _ = trained
    images = torch.rand(2, 1, 3, 64, 64).expand(2, 2, 3, 64, 64).clone()
    images[1, 1, :, 32:48, 16:32] = 1 - images[1, 1, :, 32:48, 16:32].round()
    maps = module.difference_maps({"images": images})
    assert maps.shape == (2, 4, 4)
    assert maps[0].max() < 1e-4
    assert maps[1].argmax() == 4 * 2 + 1


def test_pictures_are_drawn_after_a_test_and_require_a_captioner(trained, tmp_path):
    pytest.importorskip("matplotlib")
    module, pairs, _, _ = trained
    pictures = CaptionPictures(num_pairs=2, folder=str(tmp_path / "out"))
    trainer(tmp_path, callbacks=[pictures]).test(module, datamodule=pairs, verbose=False)
    page = (tmp_path / "out" / "captions.html").read_text()
    for record in pairs.records("test"):
        assert record.id in page
        assert all(caption in page for caption in record.captions)
    assert page.count("data:image/png") == 1 + 2 * 3  # with the scale
    assert (tmp_path / "out" / "captions.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(MisconfigurationException, match=r"requires BoringModel.generate\(batch\)"):
        trainer(tmp_path, callbacks=[pictures]).test(BoringModel(), verbose=False)
    with pytest.raises(ValueError, match="num_pairs=0"):
        CaptionPictures(num_pairs=0)


def test_images_of_another_size_are_resized(trained):
    module, _, _, _ = trained
    images = torch.rand(2, 2, 3, 100, 80)
    assert module._pixels({"images": images}).shape == (2, 2, 3, 64, 64)


def test_low_rank_training_changes_no_other_weights(tiles, tmp_path):
    pytest.importorskip("peft")
    module = ChangeCaptioner(lora_rank=2, max_new_tokens=4)
    module._optimizer = lambda p: torch.optim.AdamW(p, lr=1e-2)
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    run = trainer(tmp_path, max_steps=2, limit_val_batches=0)
    run.fit(module, datamodule=data(tiles))
    moved = {name for name, p in module.named_parameters() if not torch.equal(before[name], p)}
    assert any("lora_" in name for name in moved)
    assert any("output_gate" in name for name in moved)
    kinds = ("lora_", "modules_to_save")
    assert all(any(kind in name for kind in kinds) for name in moved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "1b"}, "size='1b'"),
        ({"num_beams": 0}, "num_beams=0"),
        ({"lora_rank": -1}, "lora_rank=-1"),
        ({"vocab_size": 7}, "vocab_size=7"),
        ({"size": "0.5b", "vocab_size": 500}, "published sizes have the tokens"),
        ({"loss_on": "prompt"}, "loss_on='prompt'"),
    ],
)
def test_the_error_names_an_argument_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChangeCaptioner(**arguments)


def test_the_error_names_missing_weights_and_missing_captions(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    with pytest.raises(ValueError, match=r"pretrained=None: size='0\.5b' requires the folder"):
        run.fit(ChangeCaptioner("0.5b"), torch.utils.data.DataLoader([0]))
    with pytest.raises(ValueError, match=r"training_captions\(\), which NoneType does not have"):
        run.fit(ChangeCaptioner(), torch.utils.data.DataLoader([0]))
