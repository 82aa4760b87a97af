"""Stage 0: its targets, its cache, and a captioner that starts from it."""

import pytest
import torch
from lightning.pytorch import Trainer

pytest.importorskip("transformers")
pytest.importorskip("PIL")

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.datamodules.change_captioning.tile_scene import House, Scene
from lightning_plugins.litmodels.change_captioning import (
    ChangeCaptioner,
    captioner,
    tile_pretraining,
)
from lightning_plugins.litmodels.change_captioning.tile_pretraining import (
    Pretraining,
    pretrained_on_tiles,
    words_of,
)

SHORT = Pretraining(num_pairs=6, vision_steps=2, answer_steps=2, batch_size=3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache):
    return pretrained_on_tiles(cache, SHORT)


def test_the_answer_names_the_most_frequent_object_in_each_quarter():
    houses = (House(0, 0, 8, 8, 0), House(1, 1, 8, 8, 0), House(3, 0, 8, 8, 0))
    scene = Scene("sand", houses, trees=((1, 0), (0, 3)), ponds=((2, 2),))
    assert tile_pretraining._contents(scene) == "house trees house pond"
    assert tile_pretraining._contents(Scene("sand")) == "nothing nothing nothing nothing"


def test_shares_equal_the_label_frequencies_of_each_patch():
    tiles = tile_pretraining._Tiles.drawn(SHORT)
    assert tiles.images.shape == (6, 2, 3, 64, 64)
    labels = tile_pretraining.tile_pair((0, 3, 4)).labels[1]
    for patch in (0, 5, 15):
        row, column = divmod(patch, 4)
        part = torch.from_numpy(labels)[16 * row :, 16 * column :][:16, :16]
        expected = torch.bincount(part.flatten(), minlength=5) / 256
        torch.testing.assert_close(tiles.shares[4, 1, patch], expected)


def test_each_plan_is_trained_once(cache, made, monkeypatch):
    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(tile_pretraining, "_pretrain", never)
    assert pretrained_on_tiles(cache, SHORT) == made
    with pytest.raises(AssertionError, match="trained again"):
        pretrained_on_tiles(cache, Pretraining(num_pairs=7))
    assert [path.name for path in cache.iterdir()] == [made.name]  # no temporary folder remains


def test_the_same_plan_gives_the_same_weights_and_keeps_the_generator_state(made, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = pretrained_on_tiles(tmp_path, SHORT)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.name == made.name
    for name in ("model.safetensors", "words.json"):
        assert (again / name).read_bytes() == (made / name).read_bytes()


@pytest.fixture
def short_pretraining(made, monkeypatch):
    """Make captioners start from the short pre-training."""
    monkeypatch.setattr(captioner, "pretrained_on_tiles", lambda: made)


def fit(folder, module, **arguments):
    data = ChangeCaptionDataModule(
        batch_size=2, num_train=4, num_val=1, num_test=1, data_dir=str(folder)
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data, **arguments)
    return trainer


def untrained_captioner():
    return ChangeCaptioner(pretrained="tiles", optimizer=lambda p: torch.optim.SGD(p, lr=0.0))


def test_a_captioner_starts_with_the_pretrained_weights_and_words(
    short_pretraining, made, tmp_path
):
    from safetensors.torch import load_file

    module = untrained_captioner()
    fit(tmp_path, module)
    parameters = dict(module.network.named_parameters())
    for name, weight in load_file(made / "model.safetensors").items():
        assert torch.equal(parameters[name], weight), name
    words = words_of(made)
    assert module._tokenizer.words[: len(words)] == words


def test_new_words_follow_the_known_words():
    known = ["the", "house"]
    learned = captioner.WordTokenizer.learned(["a villa and a house"], 16, known)
    assert learned.words == ["the", "house", "a", "and", "villa"]


def test_a_resumed_captioner_is_not_pretrained_again(short_pretraining, tmp_path, monkeypatch):
    trained = ChangeCaptioner(pretrained="tiles", optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    fit(tmp_path, trained).save_checkpoint(tmp_path / "run.ckpt")

    def never():
        raise AssertionError("pre-trained again")

    monkeypatch.setattr(captioner, "pretrained_on_tiles", never)
    loaded = ChangeCaptioner.load_from_checkpoint(
        tmp_path / "run.ckpt", weights_only=True, map_location="cpu"
    )
    resumed = untrained_captioner()
    fit(tmp_path, resumed, ckpt_path=tmp_path / "run.ckpt")
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
        assert torch.equal(resumed.state_dict()[name], value)


def test_predict_before_training_raises_an_error(tmp_path):
    data = ChangeCaptionDataModule(num_train=1, num_val=1, num_test=1, data_dir=str(tmp_path))
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False)
    with pytest.raises(ValueError, match="no tokenizer before it is trained: load the checkpoint"):
        trainer.predict(untrained_captioner(), datamodule=data)


def test_a_tiny_network_accepts_only_tiles_and_no_lora_with_them():
    with pytest.raises(ValueError, match="lora_rank=2: expected 0 with pretrained='tiles'"):
        ChangeCaptioner(pretrained="tiles", lora_rank=2)
    with pytest.raises(ValueError, match=r"pretrained='weights': expected None or 'tiles'"):
        ChangeCaptioner(pretrained="weights")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute of one core
def test_the_default_pretraining_predicts_the_objects_of_new_tiles(tmp_path):
    plan = Pretraining()
    tiles = tile_pretraining._Tiles.drawn(Pretraining(num_pairs=32, seed=77))
    folder = pretrained_on_tiles(tmp_path, plan)
    words = captioner.WordTokenizer(words_of(folder))
    network = captioner.build_network("tiny", "none").eval()
    captioner.load_released(network, folder)
    prompt = captioner.Prompt(words, 3, network.tokens_per_image)
    answers = prompt.with_answers(tiles.answers, torch.device("cpu"))
    with torch.no_grad():
        found = network(pixel_values=tiles.pixels(torch.arange(32)), **answers).logits.argmax(-1)
    wanted = answers["labels"][:, 1:]
    # With labels, the logits are those of the targets.
    assert (found == wanted[wanted != -100]).float().mean() > 0.9
