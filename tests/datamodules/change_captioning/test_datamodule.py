"""ChangeCaptionDataModule: file formats, caption modes, joint augmentation, splits and errors."""

import json

import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord, read_captions
from lightning_plugins.datamodules.change_captioning.image_pairs import (
    ImagePairs,
    PairCache,
    collate,
    read_pair,
)


def save(path, colour, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def levir(tmp_path):
    """Return a folder in LEVIR-CC's layout: three training pairs, one each for val and test."""
    images = []
    for number, split in enumerate(("train", "train", "train", "val", "test")):
        name = f"{split}_{number:06d}.png"
        for part, value in (("A", 10 * number), ("B", 10 * number + 100)):
            save(tmp_path / "images" / split / part / name, (value, 0, 0))
        images.append(
            {
                "filepath": split,
                "filename": name,
                "split": split,
                "changeflag": number % 2,
                "sentences": [{"raw": f" pair {number} caption {c} ."} for c in range(3)],
            }
        )
    write(tmp_path, images)
    return tmp_path


def write(folder, images):
    (folder / "LevirCCcaptions.json").write_text(json.dumps({"images": images}))


def contents(folder):
    return json.loads((folder / "LevirCCcaptions.json").read_text())["images"]


def ready(folder, **arguments):
    data = ChangeCaptionDataModule(str(folder), batch_size=2, **arguments)
    data.prepare_data()
    data.setup()
    return data


def test_pairs_captions_and_flags_are_read_from_the_layout_of_levir_cc(levir):
    (batch,) = ready(levir).val_dataloader()
    assert batch["id"] == ["val_000003"]
    assert batch["references"] == [[f"pair 3 caption {c} ." for c in range(3)]]
    assert batch["changed"] == [True]
    assert batch["images"].shape == (1, 2, 3, 8, 8)
    assert batch["images"][0, :, 0, 0, 0].tolist() == pytest.approx([30 / 255, 130 / 255])
    assert batch["images"][0, :, 1:].abs().max() == 0


def test_records_of_cc_foundation_are_read_as_a_list_and_as_lines(levir):
    records = [
        {
            "uid": f"u{number}",
            "img1_path": f"images/train/A/train_00000{number}.png",
            "img2_path": f"images/train/B/train_00000{number}.png",
            "change_flag": True,
            "change_caption": ["one", "two"],
        }
        for number in range(2)
    ]
    (levir / "LevirCCcaptions.json").unlink()
    (levir / "records.json").write_text(json.dumps(records))
    from_list = read_captions(levir)
    (levir / "records.json").unlink()
    (levir / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert read_captions(levir) == from_list
    assert from_list[1].captions == ("one", "two")
    assert read_pair(from_list[1])[1, 0, 0, 0] == pytest.approx(110 / 255)


def test_flatten_has_each_caption_once_and_random_has_one_per_pair(levir):
    data = ready(levir, caption_mode="flatten")
    captions = [caption for batch in data.train_dataloader() for caption in batch["caption"]]
    assert sorted(captions) == sorted(data.training_captions())
    assert len(captions) == 9
    data.caption_mode = "random"
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(6):
        loader.set_epoch(epoch)
        pairs = [p for b in loader for p in zip(b["id"], b["caption"], strict=True)]
        assert len({pair for pair, _ in pairs}) == len(pairs) == 3
        epochs.append(sorted(pairs))
    assert len({str(pairs) for pairs in epochs}) > 1


def test_training_folder_replaces_the_training_part_until_it_is_reset(levir, tmp_path_factory):
    other = tmp_path_factory.mktemp("foundation")
    save(other / "a.png", (9, 9, 9))
    record = {"uid": "f0", "img1_path": "a.png", "img2_path": "a.png", "change_caption": ["x"]}
    (other / "records.json").write_text(json.dumps([record]))
    data = ready(levir, training_folder=str(other))
    assert [batch["id"] for batch in data.train_dataloader()] == [["f0"]]
    assert [batch["id"] for batch in data.val_dataloader()] == [["val_000003"]]
    data.training_folder = None
    assert len(data.train_dataloader().indexed_dataset) == 3


def test_both_images_of_a_pair_are_augmented_in_the_same_way(tmp_path):
    before, after = tmp_path / "a.png", tmp_path / "b.png"
    picture = Image.effect_noise((8, 8), 60).convert("RGB")
    picture.save(before)
    picture.save(after)
    pairs = ImagePairs([PairRecord("p", before, after)], augment=True)
    torch.manual_seed(0)
    seen = [pairs[0]["images"] for _ in range(40)]
    assert all(torch.equal(images[0], images[1]) for images in seen)
    assert len({images.numpy().tobytes() for images in seen}) == 8


def test_images_of_a_data_set_that_fits_are_decoded_once(levir):
    records = ready(levir).records("train")
    for limit, is_kept in ((3, True), (2, False)):
        cache = PairCache(max_bytes=limit * 4 * 2 * 3 * 8 * 8)
        first, second = (
            [ImagePairs(records, cache=cache)[place]["images"] for place in range(3)]
            for _ in range(2)
        )
        assert [a is b for a, b in zip(first, second, strict=True)] == [is_kept] * 3
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_predict_reads_the_given_pair_without_reading_or_generating_a_data_set(tmp_path):
    save(tmp_path / "old.png", (1, 2, 3))
    save(tmp_path / "new.png", (4, 5, 6))
    own = {"before": str(tmp_path / "old.png"), "after": str(tmp_path / "new.png")}
    data = ChangeCaptionDataModule(data_dir=str(tmp_path / "tiles"), **own)
    data.prepare_data()
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["id"] == ["new"]
    assert set(batch) == {"id", "images"}
    assert not (tmp_path / "tiles").exists()
    with pytest.raises(ValueError, match=r"after=None: expected both or neither"):
        ChangeCaptionDataModule(before="old.png")


def alter(levir, part, **fields):
    images = contents(levir)
    images[part] |= fields
    write(levir, images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: alter(f, 0, split="dev"), "'train_000000' has split='dev'"),
        (lambda f: alter(f, 0, sentences=[]), "'train_000000' has no caption"),
        (lambda f: alter(f, 1, sentences=[{"raw": " "}]), "'train_000001' has no caption, or an"),
        (lambda f: alter(f, 1, filename="train_000000.png"), "two pairs have the id"),
        (lambda f: (f / "images/train/B/train_000001.png").unlink(), "B/train_000001.png is miss"),
        (
            lambda f: (f / "v1.json").write_text((f / "LevirCCcaptions.json").read_text()),
            "v1.json and LevirCCcaptions.json both have the pair 'train_000000': give the path",
        ),
        (lambda f: alter(f, 0, changeflag=2), "'train_000000' has the change flag 2; expected 0"),
        (
            lambda f: (f / "LevirCCcaptions.json").write_text("{"),
            "LevirCCcaptions.json is not valid",
        ),
        (
            lambda f: (f / "LevirCCcaptions.json").write_text('{"a": 1}'),
            "expected a caption file.*found: LevirCCcaptions.json",
        ),
    ],
)
def test_the_error_names_the_problem_of_a_folder(levir, damage, message):
    damage(levir)
    with pytest.raises(ValueError, match=message):
        ready(levir)


BAD_PICTURES = [
    (lambda f: save(f, 0, size=(4, 8)), "has 8x8 pixels, .*train_000001.png has 4x8"),
    (lambda f: f.write_bytes(f.read_bytes()[:40]), "train_000001.png is not a readable image"),
    (lambda f: f.write_text("no picture"), "train_000001.png is not a readable image"),
    (lambda f: save(f, 0, mode="I;16"), "have values of the types uint16 and uint8"),
]


def test_a_json_file_without_captions_is_left_out_with_a_warning(levir):
    (levir / "vocab.json").write_text('{"a": 1}')
    (levir / "statistics.json").write_text("[1, 2]")
    with pytest.warns(UserWarning, match=r"statistics\.json, vocab\.json contains no captions"):
        assert len(ready(levir).records("train")) == 3


def test_a_caption_file_may_start_with_a_byte_order_mark(levir):
    file = levir / "LevirCCcaptions.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert len(ready(file).records("train")) == 3


def test_empty_captions_are_left_out_with_skip_bad_and_counted(levir):
    alter(levir, 0, sentences=[{"raw": " "}, {"raw": "a house ."}])
    alter(levir, 1, sentences=[])
    alter(levir, 2, sentences=[{"raw": None}, {"raw": "."}, {"raw": "\u200b"}, {"raw": "houses"}])
    with pytest.warns(UserWarning, match="empty captions of 3 pairs, and 1 pairs without any"):
        records = ready(levir, skip_bad=True).records("train")
    assert [record.captions for record in records] == [("a house .",), ("houses",)]
    assert [record.id for record in records] == ["train_000000", "train_000002"]


def test_skip_bad_raises_an_error_if_no_pair_is_left(levir):
    (levir / "images/test/B/test_000004.png").unlink()
    data = ChangeCaptionDataModule(str(levir), skip_bad=True)
    with (
        pytest.warns(UserWarning, match="dropped 1 of 1 pairs"),
        pytest.raises(ValueError, match="left no pair with split='test'"),
    ):
        data.setup("test")


@pytest.mark.parametrize("flag", [-1, "-1", None])
def test_an_unknown_change_flag_is_none(levir, flag):
    alter(levir, 4, changeflag=flag)
    (batch,) = ready(levir).test_dataloader()
    assert "changed" not in batch


def test_flags_are_read_from_text_and_a_batch_keeps_those_that_are_known(levir):
    for place, flag in enumerate((" True", -1, "0")):
        alter(levir, place, changeflag=flag)
    data = ready(levir, caption_mode="first")
    samples = [data.train_dataloader().indexed_dataset[i] for i in range(3)]
    assert collate(samples)["changed"] == [True, None, False]


def test_pairs_of_several_sizes_become_one_batch_of_the_size_of_the_module(levir):
    for part, size in (("A", (12, 20)), ("B", (12, 20))):
        save(levir / f"images/train/{part}/train_000001.png", (50, 0, 0), size)
    data = ready(levir, caption_mode="first")
    samples = [data.train_dataloader().indexed_dataset[i] for i in range(3)]
    assert collate(samples)["images"].shape == (3, 2, 3, 20, 12)
    batch = collate(samples, side=16)["images"]
    assert batch.shape == (3, 2, 3, 16, 16)
    assert torch.allclose(batch[1, :, 0], torch.tensor(50 / 255), atol=1e-6)
    assert collate([samples[0], samples[2]], side=16)["images"].shape == (2, 2, 3, 8, 8)


@pytest.mark.parametrize("mode", ["CMYK", "1", "L", "RGBA", "P"])
def test_other_8_bit_formats_are_converted_to_rgb(tmp_path, mode):
    pixels = torch.zeros(8, 8, 3, dtype=torch.uint8)
    pixels[:4] = 255
    suffix = "tif" if mode == "CMYK" else "png"
    for name in ("a", "b"):
        Image.fromarray(pixels.numpy()).convert(mode).save(tmp_path / f"{name}.{suffix}")
    pair = read_pair(PairRecord("p", tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"))
    assert torch.equal(pair[0], pixels.permute(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_fully_transparent_pixels_are_black(tmp_path, mode):
    picture = Image.new("RGBA", (8, 8), (90, 90, 90, 255))
    picture.putpixel((3, 2), (200, 200, 200, 0))
    picture.convert(mode).save(tmp_path / "a.png")
    pair = read_pair(PairRecord("p", tmp_path / "a.png", tmp_path / "a.png"))
    assert pair[:, :, 2, 3].abs().max() == 0
    assert pair[:, :, 0, 0].min() == pytest.approx(90 / 255)


@pytest.mark.parametrize(("damage", "message"), BAD_PICTURES)
def test_an_invalid_image_raises_an_error_or_is_dropped_with_a_warning(levir, damage, message):
    damage(levir / "images/train/B/train_000001.png")
    with pytest.raises(ValueError, match=message):
        list(ready(levir).train_dataloader())
    with pytest.warns(UserWarning, match=f"dropped 1 of 3 pairs; the first: .*{message}"):
        data = ready(levir, skip_bad=True)
    assert [record.id for record in data.records("train")] == ["train_000000", "train_000002"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"caption_mode": "all"}, "caption_mode='all'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_val": 0}, "num_val=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_the_error_names_an_argument_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChangeCaptionDataModule(**arguments)
