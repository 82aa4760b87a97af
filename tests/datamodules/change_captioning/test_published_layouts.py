"""The layouts of published data sets, built from their public descriptions."""

import json

import pytest

pytest.importorskip("PIL")

from PIL import Image

from lightning_plugins.datamodules.change_captioning import ChangeCaptionDataModule
from lightning_plugins.datamodules.change_captioning.caption_files import read_captions

PARTS = ("train", "val", "test")


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def image(split, number, **fields):
    sentences = [{"raw": f" {split} {number} ."}]
    return {"filename": f"{number}.png", "split": split, "sentences": sentences} | fields


def write(file, images):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images}))


def parts_of(records):
    return sorted({(r.split, r.before.parent.name, r.after.parent.name) for r in records})


LAYOUTS = {
    "LEVIR-CC": ("images/{split}/A", "images/{split}/B"),
    "WHU-CDC": ("{split}/A", "{split}/B"),
    "SECOND-CC": ("{split}/rgb/A", "{split}/rgb/B"),
    "without parts": ("A", "B"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_images_of_a_layout_are_found(tmp_path, layout):
    images = []
    for place, split in enumerate(PARTS):
        images.append(image(split, place, filepath=split))
        for folder in LAYOUTS[layout]:
            save(tmp_path / folder.format(split=split) / f"{place}.png")
    write(tmp_path / "captions.json", images)
    if layout == "SECOND-CC":  # classes of both images, in folders of the same names
        for split in PARTS:
            (tmp_path / split / "sem" / "A").mkdir(parents=True)
            (tmp_path / split / "sem" / "B").mkdir()
    data = ChangeCaptionDataModule(str(tmp_path))
    for place, split in enumerate(PARTS):
        (record,) = data.records(split)
        assert record.before == tmp_path / LAYOUTS[layout][0].format(split=split) / f"{place}.png"
        assert record.after == tmp_path / LAYOUTS[layout][1].format(split=split) / f"{place}.png"


def test_names_with_other_capitals_are_found_and_hidden_files_are_not_read(tmp_path):
    for side in "ab":
        save(tmp_path / "Images" / "Train" / side / "0.PNG")
    write(tmp_path / "Captions.JSON", [image("TRAIN", 0, filepath="train")])
    (tmp_path / "._Captions.JSON").write_bytes(b"\0\5\x16\7\xff")  # of an archive from macOS
    (record,) = ChangeCaptionDataModule(str(tmp_path)).records("train")
    assert record.before == tmp_path / "Images" / "Train" / "a" / "0.PNG"
    assert record.after == tmp_path / "Images" / "Train" / "b" / "0.PNG"


@pytest.mark.parametrize("names", [("Train", "Validation", "Test"), ("tr", "val", "te")])
def test_dubai_cc_has_a_folder_per_year_and_a_file_per_part(tmp_path, names):
    for split, name in zip(PARTS, names, strict=True):
        images = [image(split, 1)]  # numbered anew in each part
        if name != "Train":
            del images[0]["split"]
        write(tmp_path / "description_jsontr_te_val" / f"Dubai_{name}.json", images)
    (tmp_path / "vocab.json").write_text("{}")  # without captions, beside the subfolder
    for year in ("500_2010", "500_2000"):
        save(tmp_path / "RGB" / year / "1.png")
    data = ChangeCaptionDataModule(str(tmp_path))
    found = [record for split in PARTS for record in data.records(split)]
    assert [record.captions for record in found] == [(f"{split} 1 .",) for split in PARTS]
    assert {(r.before.parent.name, r.after.parent.name) for r in found} == {
        ("500_2000", "500_2010")
    }


def test_a_data_set_may_be_in_a_subfolder(tmp_path):
    for side in "AB":
        save(tmp_path / "LEVIR-CC/images/train" / side / "0.png")
    write(tmp_path / "LEVIR-CC/captions.json", [image("train", 0, filepath="train")])
    (record,) = ChangeCaptionDataModule(str(tmp_path)).records("train")
    assert record.before == tmp_path / "LEVIR-CC/images/train/A/0.png"


@pytest.mark.parametrize(
    ("sentence", "caption"),
    [("a house .", "a house ."), ({"tokens": ["a", "house"]}, "a house"), ({"raw": "a"}, "a")],
)
def test_a_sentence_is_a_text_or_has_raw_or_tokens(tmp_path, sentence, caption):
    write(tmp_path / "captions.json", [{**image("train", 0), "sentences": [sentence]}])
    assert read_captions(tmp_path)[0].captions == (caption,)


@pytest.mark.parametrize("sentence", [{"imgid": 3}, 3, {"tokens": "ab"}, ["a"]])
def test_another_sentence_is_refused_with_its_pair(tmp_path, sentence):
    write(tmp_path / "captions.json", [{**image("train", 0), "sentences": [sentence]}])
    with pytest.raises(ValueError, match=r"pair '0' has the sentence .*; expected an object"):
        read_captions(tmp_path)


def test_images_of_the_training_in_another_part_are_counted_in_a_warning(tmp_path):
    images = [image(split, n, filepath="all") for split in PARTS for n in range(2)]
    images[0]["filename"] = "9.png"
    write(tmp_path / "captions.json", images)
    with pytest.warns(match=r"3 pairs of images .*'1', is in train and in val"):
        read_captions(tmp_path)


def test_levir_mci_has_masks_beside_its_images(tmp_path):
    for folder in ("A", "B", "label"):
        save(tmp_path / "images/train" / folder / "0.png")
        if folder != "label":
            save(tmp_path / "images/train" / folder / "1.png")
    write(tmp_path / "captions.json", [image("train", n, filepath="train") for n in range(2)])
    masks = [record.mask for record in read_captions(tmp_path)]
    assert masks == [tmp_path / "images/train/label/0.png", None]


@pytest.fixture
def foundation(tmp_path):
    """Write three files of CC-Foundation, whose ids each begin with 0."""
    save(tmp_path / "a.png")
    for name, count in (("sysu", 3), ("LevirCC_train", 2), ("LevirCC_test", 1)):
        records = [
            {"uid": uid, "img1_path": "a.png", "img2_path": str(tmp_path / "a.png"),
             "change_flag": [1, 0, -1][uid], "change_caption": [name]}
            for uid in range(count)
        ]  # fmt: skip
        (tmp_path / f"{name}_universal.json").write_text(json.dumps(records))
    return tmp_path


def test_all_files_of_cc_foundation_are_read_and_a_test_file_is_not_trained_on(foundation):
    data = ChangeCaptionDataModule(str(foundation))
    records = data.records("train")
    assert len({record.id for record in records}) == len(records) == 5
    assert [record.captions for record in data.records("test")] == [("LevirCC_test",)]
    assert [r.changed for r in records if r.captions == ("sysu",)] == [True, False, None]


def listed(folder, *entries):
    lines = [
        f"- {{json_path: {name}_universal.json, sampling_strategy: {s}}}" for name, s in entries
    ]
    (folder / "mixture.yaml").write_text("datasets:\n" + "\n".join(lines))
    return folder / "mixture.yaml"


def test_a_file_that_is_listed_twice_is_drawn_twice_as_often(foundation):
    entries = ("sysu", "all"), ("LevirCC_train", "all"), ("LevirCC_train", "all")
    records = read_captions(listed(foundation, *entries))
    assert [record.captions[0] for record in records] == ["sysu"] * 3 + ["LevirCC_train"] * 4
    assert len({record.id for record in records}) == 5


@pytest.mark.parametrize(
    ("strategy", "uids"),
    [("first:2", "01"), ("end:1", "2"), ("first:50%", "01"), ("random:200%", "012")],
)
def test_a_strategy_takes_a_part_of_a_file(foundation, strategy, uids):
    records = read_captions(listed(foundation, ("sysu", strategy)))
    assert sorted(record.id[-1] for record in records) == list(uids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: []", "a list named datasets"),
        ("datasets: [{json_path: sysu_universal.json, sampling_strategy: best}]", "'best'"),
        ("datasets: [{path: a}]", "has no json_path"),
        ("datasets: [{json_path: /etc/passwd}]", "leads out of its folder"),
        ("datasets: [{json_path: ../x.json}]", "leads out of its folder"),
    ],
)
def test_the_error_names_the_problem_of_a_list(foundation, text, message):
    (foundation / "mixture.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_captions(foundation / "mixture.yaml")


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "~/a.png", "C:\\a.png"])
def test_a_caption_file_cannot_name_a_file_outside_of_its_folder(foundation, path):
    file = foundation / "sysu_universal.json"
    records = json.loads(file.read_text())
    records[0]["img2_path"] = path
    file.write_text(json.dumps(records))
    with pytest.raises(ValueError, match="leads out of its folder"):
        read_captions(foundation)
    write(foundation / "captions.json", [image("train", 0, filepath=path)])
    with pytest.raises(ValueError, match="leads out of its folder"):
        read_captions(foundation / "captions.json")


def test_contradictions_of_caption_flag_and_mask_are_counted(tmp_path):
    """A pair for each combination of a caption, a flag and a mask of change or no change."""
    images = []
    for place in range(8):
        caption, flag, mask = place & 1, place >> 1 & 1, place >> 2
        text = "a house is built" if caption else "nothing has changed"
        sentences = [{"raw": text}]
        images.append(image("train", place, filepath="train", changeflag=flag, sentences=sentences))
        for folder in ("A", "B", "label"):
            save(tmp_path / "images/train" / folder / f"{place}.png")
        mode, value = (("L", 255), ("LA", (255, 255)), ("RGBA", (0, 255, 0, 255)))[place % 3]
        value = value if mask else (0 if mode == "L" else (*[0] * (len(mode) - 1), 255))
        Image.new(mode, (8, 8), value).save(tmp_path / f"images/train/label/{place}.png")
    images[0]["sentences"] *= 2
    images[0]["sentences"] += [{"raw": "a road appears"}]
    write(tmp_path / "captions.json", images)
    found = ChangeCaptionDataModule(str(tmp_path)).consistency("train")
    assert (found.pairs, found.with_flag, found.with_mask, found.contradictory) == (8, 8, 8, 7)
    assert found.ids["captions: change, flag: no change"] == ["1", "5"]
    assert found.ids["captions: no change, mask: change"] == ["4", "6"]
    assert found.ids["flag: change, mask: no change"] == ["2", "3"]
    assert found.ids["captions of one pair differ"] == ["0"]
    assert "7 (87.5%) contradict themselves" in str(found)
