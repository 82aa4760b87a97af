"""Synthetic bi-temporal tiles, written as a folder in LEVIR-CC's own layout."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_plugins.datamodules.change_captioning.render import flown_over, render
from lightning_plugins.datamodules.change_captioning.scene import Event, Scene, draw_pair
from lightning_plugins.datamodules.change_captioning.sentences import captions_of

VERSION = 1
"""Of the tiles; another one is another folder."""


def generated_folder(cache: Path, sizes: dict[str, int], seed: int) -> Path:
    """Folder of made-up image pairs under ``cache``, made if it is not there yet.

    64-pixel tiles of a place before and after: houses, roads, groups of trees, ponds and cars on
    grassland, bare land or sand. In 30 % of the pairs nothing changes but light, tint, noise, cars
    and a pixel of registration. Each pair has five captions, its ``changeflag`` and, under
    ``label``, the mask of what changed (255). The layout is that of LEVIR-CC. These are synthetic
    tiles: scores on them stand beside no published ones.

    Args:
        cache: folder that holds the data sets.
        sizes: pairs of ``train``, ``val`` and ``test``; no pair is in two of them.
        seed: of everything.
    """
    counts = "_".join(f"{split}{count}" for split, count in sizes.items())
    folder = cache / f"tiles_v{VERSION}_seed{seed}_{counts}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=cache, prefix=".making_"))
    try:
        images = [
            _write_pair(work / "images", split, number, (seed, part, number))
            for part, (split, count) in enumerate(sizes.items())
            for number in range(count)
        ]
        text = json.dumps({"dataset": "synthetic bi-temporal tiles", "images": images})
        (work / "captions.json").write_text(text, encoding="utf-8")
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same tiles
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class TilePair:
    """A made-up place at two times.

    Args:
        scenes: what stands on the tile, before and after.
        pictures: uint8 ``(64, 64, 3)`` each.
        labels: class of each pixel, uint8 ``(64, 64)`` each, by
            :data:`~lightning_plugins.datamodules.change_captioning.render.CLASSES`.
        event: what changed.
    """

    scenes: tuple[Scene, Scene]
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    labels: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    event: Event


def tile_pair(key: tuple[int, ...]) -> TilePair:
    """The pair of a key; the data sets' are ``(seed, part, number)`` with parts 0 to 2."""
    rng = np.random.default_rng(key)
    texture_seed = int(rng.integers(2**31))
    before, after, event = draw_pair(rng)
    (first, first_labels), (second, second_labels) = (
        render(scene, texture_seed) for scene in (before, after)
    )
    pictures = flown_over(first, rng), flown_over(second, rng)
    return TilePair((before, after), pictures, (first_labels, second_labels), event)


def _write_pair(images: Path, split: str, number: int, key: tuple[int, ...]) -> dict[str, object]:
    from PIL import Image

    pair = tile_pair(key)
    name = f"{split}_{number:06d}.png"
    before, after = pair.labels
    pictures = {
        "A": pair.pictures[0],
        "B": pair.pictures[1],
        "label": np.where(before != after, 255, 0).astype(np.uint8),
    }
    for part, pixels in pictures.items():
        (images / split / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(images / split / part / name)
    return {
        "filepath": split,
        "filename": name,
        "split": split,
        "changeflag": int(pair.event.kind != "none"),
        "kind": pair.event.kind,
        "sentences": [{"raw": f"{caption}."} for caption in captions_of(pair.event)],
    }
