"""Random scenes seen from above, and random changes to scenes."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Ground = Literal["grassland", "bare land", "sand"]
Change = Literal["none", "built", "demolished", "road", "cleared", "planted", "flooded"]
SIDE = 64
"""Height and width of a tile in pixels."""
_KINDS: tuple[Change, ...] = (
    *("none", "built", "demolished", "road", "cleared", "planted", "flooded"),
)
_SHARES = (0.3, 0.25, 0.12, 0.1, 0.1, 0.08, 0.05)
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class House:
    """A house in the cell ``row``, ``column`` (0 to 3 each) of the grid; its size is in pixels."""

    row: int
    column: int
    height: int
    width: int
    roof: int


@dataclass(frozen=True)
class Scene:
    """The objects on a tile of 4 by 4 cells.

    Args:
        ground: Kind of ground.
        houses: Houses, at most one per cell.
        trees: Cells with a group of trees.
        roads: ``(horizontal, cell)`` of straight roads across the tile, along a cell's edge.
        ponds: Cells with a pond.
        cars: ``(road, position along it in pixels, colour)``.
    """

    ground: Ground
    houses: tuple[House, ...] = ()
    trees: tuple[tuple[int, int], ...] = ()
    roads: tuple[tuple[bool, int], ...] = ()
    ponds: tuple[tuple[int, int], ...] = ()
    cars: tuple[tuple[int, int, int], ...] = ()

    def free_cells(self) -> list[tuple[int, int]]:
        """Return the cells without a house, trees or a pond."""
        taken = {(house.row, house.column) for house in self.houses}
        taken |= {*self.trees, *self.ponds}
        return [(r, c) for r in range(4) for c in range(4) if (r, c) not in taken]


@dataclass(frozen=True)
class Event:
    """A change: its kind, its number of objects, and its quadrant or direction."""

    kind: Change
    count: int = 0
    place: str = ""


def draw_pair(rng: np.random.Generator) -> tuple[Scene, Scene, Event]:
    """Draw a scene, the same place later, and the change between them.

    Cars differ between both scenes but do not count as a change, as in LEVIR-CC.
    """
    before = _draw_scene(rng)
    wanted = _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]
    after, event = _changed(before, wanted, rng)
    return _with_cars(before, rng), _with_cars(after, rng), event


def _draw_scene(rng: np.random.Generator) -> Scene:
    grounds: tuple[Ground, ...] = ("grassland", "bare land", "sand")
    ground = grounds[int(rng.integers(3))]
    cells = [(int(cell) // 4, int(cell) % 4) for cell in rng.permutation(16)]
    num_houses, num_trees = int(rng.integers(0, 5)), int(rng.integers(0, 5))
    houses = tuple(_house(cell, rng) for cell in cells[:num_houses])
    trees = tuple(cells[num_houses : num_houses + num_trees])
    ponds = tuple(cells[-1:]) if rng.random() < 0.15 else ()
    roads = ((bool(rng.integers(2)), int(rng.integers(1, 4))),) if rng.random() < 0.5 else ()
    return Scene(ground, houses, trees, roads, ponds)


def _house(cell: tuple[int, int], rng: np.random.Generator) -> House:
    height, width = (int(size) for size in rng.integers(8, 12, size=2))
    return House(*cell, height, width, int(rng.integers(3)))


def _changed(scene: Scene, kind: Change, rng: np.random.Generator) -> tuple[Scene, Event]:
    """Apply a change of ``kind``, or no change if the scene has nothing that can change so."""
    if kind == "road":
        used = set(scene.roads)
        free = [(h, c) for h in (True, False) for c in (1, 2, 3) if (h, c) not in used]
        road = free[int(rng.integers(len(free)))]
        place = "from left to right" if road[0] else "from top to bottom"
        return replace(scene, roads=(*scene.roads, road)), Event(kind, 1, place)
    if kind in ("built", "planted", "flooded"):
        candidates = scene.free_cells()
    elif kind == "demolished":
        candidates = [(house.row, house.column) for house in scene.houses]
    else:
        candidates = list(scene.trees) if kind == "cleared" else []
    if not candidates:
        return scene, Event("none")
    # All objects of a change are in one quadrant, so that a caption can name it.
    quadrant = _quadrant(candidates[int(rng.integers(len(candidates)))])
    there = [cell for cell in candidates if _quadrant(cell) == quadrant]
    most = 1 if kind == "flooded" else min(3, len(there))
    chosen = [there[int(i)] for i in rng.permutation(len(there))[: int(rng.integers(1, most + 1))]]
    event = Event(kind, len(chosen), QUADRANTS[quadrant])
    if kind == "built":
        houses = tuple(_house(cell, rng) for cell in chosen)
        return replace(scene, houses=scene.houses + houses), event
    if kind == "demolished":
        kept = tuple(h for h in scene.houses if (h.row, h.column) not in chosen)
        return replace(scene, houses=kept), event
    if kind == "flooded":
        return replace(scene, ponds=(*scene.ponds, *chosen)), event
    if kind == "planted":
        return replace(scene, trees=(*scene.trees, *chosen)), event
    return replace(scene, trees=tuple(t for t in scene.trees if t not in chosen)), event


def _quadrant(cell: tuple[int, int]) -> int:
    return 2 * (cell[0] // 2) + cell[1] // 2


def _with_cars(scene: Scene, rng: np.random.Generator) -> Scene:
    cars = tuple(
        (road, int(rng.integers(2, SIDE - 6)), int(rng.integers(3)))
        for road in range(len(scene.roads))
        for _ in range(int(rng.integers(0, 3)))
    )
    return replace(scene, cars=cars)
