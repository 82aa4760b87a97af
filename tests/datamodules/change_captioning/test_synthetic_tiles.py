"""Synthetic tiles: determined by the seed, with correct captions and change masks."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from lightning_plugins.datamodules.change_captioning.change_sentences import NO_CHANGE, captions_of
from lightning_plugins.datamodules.change_captioning.synthetic_tiles import (
    CLASSES,
    generated_folder,
    render,
)
from lightning_plugins.datamodules.change_captioning.tile_scene import QUADRANTS, draw_pair

SIZES = {"train": 6, "val": 2, "test": 2}
PAIRS = [draw_pair(np.random.default_rng(seed)) for seed in range(300)]


def labels_of(before, after):
    return render(before, 0)[1], render(after, 0)[1]


def test_the_event_describes_the_difference_of_the_two_scenes():
    for before, after, event in PAIRS:
        counts = {
            "built": len(after.houses) - len(before.houses),
            "demolished": len(before.houses) - len(after.houses),
            "planted": len(after.trees) - len(before.trees),
            "cleared": len(before.trees) - len(after.trees),
            "flooded": len(after.ponds) - len(before.ponds),
            "road": len(after.roads) - len(before.roads),
        }
        expected = {event.kind: event.count} if event.kind != "none" else {}
        assert {kind: count for kind, count in counts.items() if count > 0} == expected


def test_the_labels_change_only_in_the_quadrant_of_the_event():
    for before, after, event in PAIRS:
        first, second = labels_of(before, after)
        changed = first != second
        assert changed.any() == (event.kind != "none")
        if event.place in QUADRANTS:
            rows, columns = (changed[:32], changed[32:]), ("left", "right")
            half = rows[event.place.startswith("bottom")]
            inside = half[:, :32] if event.place.endswith(columns[0]) else half[:, 32:]
            assert inside.sum() == changed.sum()


def test_all_kinds_of_change_and_all_classes_occur():
    kinds = [event.kind for _, _, event in PAIRS]
    assert set(kinds) == {"none", "built", "demolished", "road", "cleared", "planted", "flooded"}
    assert 0.25 < kinds.count("none") / len(kinds) < 0.5
    seen = {
        int(label) for before, after, _ in PAIRS[:60] for label in np.unique(render(after, 0)[1])
    }
    assert seen == set(range(len(CLASSES)))


def test_captions_are_five_different_sentences_that_agree_in_number():
    for _, _, event in PAIRS:
        captions = captions_of(event)
        assert len(set(captions)) == 5
        if event.kind == "none":
            assert captions == NO_CHANGE
        for caption in captions:
            assert not re.search(r"[{}]|  ", caption)
            if event.count > 1:
                assert not re.search(r"\b(is|has|appears|disappears|shows|house|pond)\b", caption)
            elif event.kind != "none":
                assert not re.search(r"\b(are|have|appear|houses|groups|two|three)\b", caption)


def test_images_differ_without_a_change_and_the_mask_is_empty_then(tmp_path):
    folder = generated_folder(tmp_path, SIZES, seed=3)
    images = json.loads((folder / "captions.json").read_text())["images"]
    for image in images:
        place = folder / "images" / image["split"]
        a, b, mask = (
            np.asarray(Image.open(place / p / image["filename"])) for p in ("A", "B", "label")
        )
        assert a.shape == b.shape == (64, 64, 3)
        assert set(np.unique(mask)) <= {0, 255}
        assert bool(mask.any()) == bool(image["changeflag"])
        assert np.abs(a.astype(int) - b.astype(int)).mean() > 2


def test_tiles_are_determined_by_the_seed_and_differ_between_parts(tmp_path):
    def content(folder):
        files = sorted(folder.rglob("*.png"))
        return {str(f.relative_to(folder)): f.read_bytes() for f in files}

    one = content(generated_folder(tmp_path / "a", SIZES, seed=3))
    assert one == content(generated_folder(tmp_path / "b", SIZES, seed=3))
    other = content(generated_folder(tmp_path / "a", SIZES, seed=4))
    assert one.keys() == other.keys()
    assert not set(one.values()) & {v for k, v in other.items() if "label" not in k}
    pictures = [value for name, value in one.items() if "label" not in name]
    assert len(set(pictures)) == len(pictures)


def test_tiles_are_generated_once_and_no_temporary_folder_remains(tmp_path):
    folder = generated_folder(tmp_path, SIZES, seed=3)
    time = (folder / "captions.json").stat().st_mtime_ns
    assert generated_folder(tmp_path, SIZES, seed=3) == folder
    assert (folder / "captions.json").stat().st_mtime_ns == time
    assert list(tmp_path.iterdir()) == [folder]
