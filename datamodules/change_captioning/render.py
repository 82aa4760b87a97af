"""Pictures of made-up places, as two flights would take them."""

import numpy as np
from numpy.typing import NDArray

from lightning_plugins.datamodules.change_captioning.scene import SIDE, Scene

CLASSES = ("ground", "road", "tree", "water", "house")
"""What a label map counts; cars and shadows are none."""
_CELL = SIDE // 4
_ROAD_WIDTH = 5
_GROUNDS = {"grassland": (96, 122, 70), "bare land": (142, 122, 96), "sand": (186, 168, 130)}
_ROOFS = (((168, 74, 60), (140, 58, 48)), ((120, 124, 132), (96, 100, 108)), ((202, 196, 184),) * 2)
_CARS = ((230, 230, 230), (40, 44, 60), (170, 40, 40))
Pixels = NDArray[np.float64]


def render(scene: Scene, texture_seed: int) -> tuple[Pixels, NDArray[np.uint8]]:
    """A clear picture ``(64, 64, 3)`` in [0, 255] of a scene, and its label map ``(64, 64)``.

    Args:
        scene: the place.
        texture_seed: of the ground and the trees, which stay where they are between two flights.
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


def flown_over(picture: Pixels, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture as one flight takes it: light, season's tint, noise, a pixel beside the place.

    None of these is a change, so that the difference of two pictures is not the answer.
    """
    shifted = np.roll(picture, rng.integers(-1, 2, size=2), axis=(0, 1))
    light, tint = rng.uniform(0.75, 1.2), rng.uniform(0.93, 1.07, size=3)
    noisy = shifted * light * tint + rng.normal(0, 4, size=picture.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator) -> Pixels:
    """Values ``(64, 64)`` of about unit size that vary over 8 pixels."""
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
