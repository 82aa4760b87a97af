"""Synthetic bi-temporal tiles: rendering of scenes, and a folder in the layout of LEVIR-CC."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_plugins.datamodules.change_captioning.change_sentences import captions_of
from lightning_plugins.datamodules.change_captioning.tile_scene import SIDE, Event, Scene, draw_pair

VERSION = 1
"""Version of the tiles, part of the folder's name."""
CLASSES = ("ground", "road", "tree", "water", "house")
"""Classes of a label map; cars and shadows have none."""
_CELL = SIDE // 4
_ROAD_WIDTH = 5
_GROUNDS = {"grassland": (96, 122, 70), "bare land": (142, 122, 96), "sand": (186, 168, 130)}
_ROOFS = (((168, 74, 60), (140, 58, 48)), ((120, 124, 132), (96, 100, 108)), ((202, 196, 184),) * 2)
_CARS = ((230, 230, 230), (40, 44, 60), (170, 40, 40))
Pixels = NDArray[np.float64]


def generated_folder(cache: Path, sizes: dict[str, int], seed: int) -> Path:
    """Return the folder of synthetic image pairs under ``cache``, and generate it if necessary.

    The pairs are 64-pixel tiles of a place before and after: houses, roads, groups of trees, ponds
    and cars on grassland, bare land or sand. In 30 % of the pairs there is no change except light,
    tint, noise, cars and a registration shift of up to one pixel. Each pair has five captions, its
    ``changeflag`` and, under ``label``, the mask of the change (255). The layout is that of
    LEVIR-CC. The tiles are synthetic: scores on them cannot be compared with published scores.

    Args:
        cache: Folder that contains the data sets.
        sizes: Number of pairs of ``train``, ``val`` and ``test``, which have no pair in common.
        seed: Seed of the scenes, changes and images.
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
            if not folder.is_dir():  # otherwise another process wrote the same tiles first
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class TilePair:
    """A synthetic place at two times.

    Args:
        scenes: The scenes before and after.
        pictures: The images, uint8 ``(64, 64, 3)`` each.
        labels: The class of each pixel, uint8 ``(64, 64)`` each, an index of
            :data:`~lightning_plugins.datamodules.change_captioning.synthetic_tiles.CLASSES`.
        event: The change.
    """

    scenes: tuple[Scene, Scene]
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    labels: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    event: Event


def tile_pair(key: tuple[int, ...]) -> TilePair:
    """Generate the pair of a key; data sets use ``(seed, part, number)`` with parts 0 to 2."""
    rng = np.random.default_rng(key)
    texture_seed = int(rng.integers(2**31))
    before, after, event = draw_pair(rng)
    (first, first_labels), (second, second_labels) = (
        render(scene, texture_seed) for scene in (before, after)
    )
    pictures = acquired(first, rng), acquired(second, rng)
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


def render(scene: Scene, texture_seed: int) -> tuple[Pixels, NDArray[np.uint8]]:
    """Render a scene as an image ``(64, 64, 3)`` in [0, 255] and a label map ``(64, 64)``.

    Args:
        scene: The scene.
        texture_seed: Seed of the texture of ground and trees, which is equal in both images of a
            pair.
    """
    rng = np.random.default_rng(texture_seed)
    noise = _smooth_noise(rng)
    picture = np.array(_GROUNDS[scene.ground], dtype=float) + 14 * noise[..., None]
    labels = np.zeros((SIDE, SIDE), dtype=np.uint8)
    trees = {cell: _tree_discs(cell, rng) for cell in np.ndindex(4, 4)}
    for horizontal, cell in scene.roads:
        along = slice(cell * _CELL - _ROAD_WIDTH // 2, cell * _CELL + _ROAD_WIDTH // 2 + 1)
        area = (along, slice(None)) if horizontal else (slice(None), along)
        picture[area], labels[area] = (124, 122, 120), CLASSES.index("road")
    for road, place, colour in scene.cars:
        horizontal, cell = scene.roads[road]
        across, along = slice(cell * _CELL - 1, cell * _CELL + 1), slice(place, place + 4)
        picture[(across, along) if horizontal else (along, across)] = _CARS[colour]
    for row, column in scene.ponds:
        inside = _disc((row + 0.5) * _CELL, (column + 0.5) * _CELL, 6.5)
        picture[inside] = np.array((52, 84, 112)) + 5 * noise[inside][:, None]
        labels[inside] = CLASSES.index("water")
    for row, column in scene.trees:
        for y, x, radius in trees[row, column]:
            inside = _disc(y, x, radius)
            picture[inside] = np.array((44, 78, 42)) + 12 * noise[inside][:, None]
            labels[inside] = CLASSES.index("tree")
    for house in scene.houses:
        top = house.row * _CELL + (_CELL - house.height) // 2
        left = house.column * _CELL + (_CELL - house.width) // 2
        picture[top + 2 : top + house.height + 2, left + 2 : left + house.width + 2] *= 0.55
        lit, dark = _ROOFS[house.roof]
        ridge = top + house.height // 2
        picture[top:ridge, left : left + house.width] = lit
        picture[ridge : top + house.height, left : left + house.width] = dark
        labels[top : top + house.height, left : left + house.width] = CLASSES.index("house")
    return picture.clip(0, 255), labels


def acquired(picture: Pixels, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Simulate one acquisition: light, seasonal tint, noise and a shift of up to one pixel.

    None of these counts as a change, so a pixel-wise difference does not solve the task.
    """
    shifted = np.roll(picture, rng.integers(-1, 2, size=2), axis=(0, 1))
    light, tint = rng.uniform(0.75, 1.2), rng.uniform(0.93, 1.07, size=3)
    noisy = shifted * light * tint + rng.normal(0, 4, size=picture.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator) -> Pixels:
    """Return values ``(64, 64)`` with a scale of about 1 that vary over 8 pixels."""
    coarse = rng.normal(size=(9, 9))
    places = np.linspace(0, 8, SIDE)
    low = np.minimum(places.astype(int), 7)
    share = places - low
    rows = coarse[low] * (1 - share)[:, None] + coarse[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _tree_discs(
    cell: tuple[int, ...], rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    places = rng.uniform(4, _CELL - 4, size=(4, 2)) + np.array(cell) * _CELL
    return [(y, x, radius) for (y, x), radius in zip(places, rng.uniform(2.5, 4, 4), strict=True)]


def _disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
