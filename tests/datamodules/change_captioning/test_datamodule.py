"""ChangeCaptionDataModule: file formats, caption modes, joint augmentation, splits and errors."""

import json

import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord, read_captions
from lightning_plugins.datamodules.change_captioning.image_pairs import ImagePairs, read_pair


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
        (lambda f: (f / "other.json").write_text("{}"), "found: LevirCCcaptions.json, other.json"),
        (
            lambda f: (f / "LevirCCcaptions.json").write_text("{"),
            "LevirCCcaptions.json is not valid",
        ),
        (lambda f: (f / "LevirCCcaptions.json").write_text('{"a": 1}'), "has an unknown format"),
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
    (lambda f: save(f, 0, mode="I;16"), "has the pixel format 'I;16', expected 8-bit"),
]


@pytest.mark.parametrize(("damage", "message"), BAD_PICTURES)
def test_an_invalid_image_raises_an_error_or_is_dropped_with_a_warning(levir, damage, message):
    damage(levir / "images/train/B/train_000001.png")
    with pytest.raises(ValueError, match=message):
        list(ready(levir).train_dataloader())
    with pytest.warns(UserWarning, match=f"dropped 1 of 5 pairs; the first: .*{message}"):
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
