"""Two scenes on a common grid: coverage, refusals, mending of shifts, and the written captions."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

pytest.importorskip("rasterio")
pytest.importorskip("pyproj")
pytest.importorskip("shapely")

import rasterio
import shapely
from rasterio.warp import transform_geom

from lightning_plugins.datamodules import ScenePairDataModule
from lightning_plugins.datamodules.change_captioning.scene_pair import ScenePair, windows
from lightning_plugins.litmodels.change_captioning import SceneCaptionWriter

CRS = "EPSG:32650"
EAST, NORTH, PIXEL = 500000.0, 4000000.0, 0.5
NAMES = ("red", "green", "blue")


def write(path, values, column=0, row=0, pixel=PIXEL, crs=CRS, **options):
    """Write bands whose upper left pixel is at a place of the common ground."""
    grid = rasterio.transform.from_origin(EAST + column * PIXEL, NORTH - row * PIXEL, pixel, pixel)
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    profile |= {"crs": crs, "transform": grid, "photometric": "MINISBLACK"} | options
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(values)
    return str(path)


def ground(height=420, width=520, seed=0):
    """Return four bands of 12 bits in 16, with structure of several sizes."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 1200, (height // 20, width // 20)), np.ones((20, 20)))
    return np.stack([coarse + rng.integers(0, 300, coarse.shape) for _ in range(4)]).astype(
        np.uint16
    )


class Reader(LightningModule):
    """A stand-in captioner that names the bands that are much brighter in the second image."""

    def predict_step(self, batch, batch_idx):
        before, after = batch["images"].unbind(1)
        brighter = ((after - before) > 0.5).sum((-2, -1)) >= 9
        captions = [
            " and ".join(f"a {name} roof" for name, seen in zip(NAMES, row, strict=True) if seen)
            for row in brighter.tolist()
        ]
        return [
            {"id": i, "caption": caption or "nothing has changed"}
            for i, caption in zip(batch["id"], captions, strict=True)
        ]


def predicted(folder, data):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[SceneCaptionWriter(str(folder / "out"))],
    )  # fmt: skip
    trainer.predict(Reader(), datamodule=data, return_predictions=False)
    return json.loads((folder / "out" / "captions.geojson").read_text())


@pytest.fixture
def planted(tmp_path):
    """Return the paths of two scenes of other extents, and the planted polygons with their names.

    The second scene begins 60 columns and 40 rows later. Two changes are outside of the area that
    both cover.
    """
    rng = np.random.default_rng(1)
    before = ground()
    after = before.copy()
    plants = [(row, column) for row in range(60, 360, 60) for column in range(80, 460, 70)]
    plants = [(r + int(rng.integers(20)), c + int(rng.integers(20)), 6) for r, c in plants]
    plants += [(10, 300, 6), (200, 20, 6)]
    polygons = []
    for place, (row, column, side) in enumerate(plants):
        after[place % 3, row : row + side, column : column + side] = 4000
        x, y = EAST + column * PIXEL, NORTH - row * PIXEL
        ring = [(x, y), (x, y - side * PIXEL), (x + side * PIXEL, y - side * PIXEL)]
        ring += [(x + side * PIXEL, y), (x, y)]
        polygons.append((NAMES[place % 3], ring, row >= 40 and column >= 60))
    first = write(tmp_path / "old.tif", before[:, :400, :480])
    second = write(tmp_path / "new.tif", after[:, 40:, 60:], column=60, row=40)
    return first, second, polygons


def degrees(ring):
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return shapely.geometry.shape(transform_geom(CRS, "EPSG:4326", geometry, precision=-1))


def test_every_planted_change_is_named_by_a_window_that_covers_it_and_none_outside(
    planted, tmp_path
):
    first, second, polygons = planted
    data = ScenePairDataModule(first, second, window=64, overlap=16, percentiles=(0, 100))
    found = predicted(tmp_path, data)
    assert found["type"] == "FeatureCollection"
    boxes = [
        (shapely.geometry.shape(f["geometry"]), f["properties"]["caption"])
        for f in found["features"]
    ]
    assert len(boxes) == len(windows(360, 420, 64, 16))
    overlap = degrees(
        [(EAST + x * PIXEL, NORTH - y * PIXEL) for x, y in
         ((60, 40), (60, 400), (480, 400), (480, 40), (60, 40))]
    )  # fmt: skip
    grown = overlap.buffer(1e-7)
    assert all(grown.contains(box) for box, _ in boxes)
    named = 0
    for name, ring, is_inside in polygons:
        polygon = degrees(ring)
        covering = [caption for box, caption in boxes if box.buffer(1e-7).contains(polygon)]
        touching = [caption for box, caption in boxes if box.intersects(polygon)]
        assert bool(covering) == is_inside
        assert all(name in caption for caption in covering)
        assert is_inside or not touching
        named += is_inside
    assert named == len(polygons) - 2
    for box, caption in boxes:  # nothing else is named
        inside = {name for name, ring, _ in polygons if box.intersects(degrees(ring))}
        assert {name for name in NAMES if name in caption} <= inside
    page = (tmp_path / "out" / "scenes.html").read_text()
    assert page.count("<h3>") == sum(f["properties"]["changed"] for f in found["features"])


def test_rings_are_counter_clockwise_and_closed(planted):
    pair = ScenePair(*planted[:2])
    (ring,) = pair.corners([(0, 0, 64, 64)])
    assert ring[0].tolist() == ring[-1].tolist()
    assert shapely.geometry.LinearRing(ring).is_ccw


def test_windows_cover_everything_and_stay_inside():
    for height, width, side, overlap in ((100, 130, 32, 8), (20, 64, 32, 0), (32, 33, 32, 31)):
        seen = np.zeros((height, width), int)
        for row, column, rows, columns in windows(height, width, side, overlap):
            assert (rows, columns) == (min(side, height), min(side, width))
            seen[row : row + rows, column : column + columns] += 1
        assert seen.min() >= 1


def test_the_second_scene_is_resampled_to_the_pixels_and_system_of_the_first(tmp_path):
    values = ground(400, 400)[:3]
    smooth = np.stack([np.kron(v[::40, ::40], np.ones((40, 40), np.uint16)) for v in values])
    first = write(tmp_path / "a.tif", smooth.repeat(2, 1).repeat(2, 2))
    coarse = write(tmp_path / "b.tif", smooth, pixel=2 * PIXEL)
    images, share = ScenePair(first, coarse, shift="ignore").read((0, 0, 800, 800))
    assert share == 1
    assert (images[0] - images[1]).abs().mean() < 0.02
    warped = tmp_path / "c.tif"
    with rasterio.open(first) as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:4326") as vrt:
        write(warped, vrt.read(), crs="EPSG:4326", transform=vrt.transform, nodata=0)
    pair = ScenePair(first, warped, shift="ignore")
    images, share = pair.read((100, 100, 400, 400))
    assert share > 0.99
    assert (images[0] - images[1]).abs().mean() < 0.03


def test_a_shift_of_the_contents_is_refused_mended_or_ignored(tmp_path):
    values = ground()
    first = write(tmp_path / "a.tif", values[:, 10:410, 10:510])
    shifted = write(tmp_path / "b.tif", values[:, 7:407, 14:514])  # 3 rows down, 4 columns left
    with pytest.raises(ValueError, match=r"by \+3\.0 rows and -4\.0 columns.*shift='mend' moves"):
        ScenePair(first, shifted)
    mended = ScenePair(first, shifted, shift="mend")
    images, _ = mended.read((100, 100, 200, 200))
    assert (images[0] - images[1]).abs().mean() < 0.01
    images, _ = ScenePair(first, shifted, shift="ignore").read((100, 100, 200, 200))
    assert (images[0] - images[1]).abs().mean() > 0.05
    assert ScenePair(first, first).measured_shift == pytest.approx((0, 0), abs=0.01)


def test_scenes_without_common_structure_are_used_with_a_warning(tmp_path):
    first = write(tmp_path / "a.tif", ground(seed=0))
    second = write(tmp_path / "b.tif", ground(seed=1))
    data = ScenePairDataModule(first, second)
    with pytest.warns(UserWarning, match="shift between the scenes could not be measured"):
        data.setup("predict")


def test_pixels_that_one_scene_lacks_are_black_in_both(tmp_path):
    values = ground()[:3]
    holed = values.copy()
    holed[:, 100:120, 100:120] = 65535
    first = write(tmp_path / "a.tif", values)
    second = write(tmp_path / "b.tif", holed, nodata=65535)
    images, share = ScenePair(first, second).read((90, 90, 40, 40))
    assert share == pytest.approx(0.75)
    assert images[:, :, 10:30, 10:30].abs().max() == 0
    assert torch.equal(images[0], images[1])


def test_a_mask_beside_the_bands_of_the_second_scene_counts(tmp_path):
    first = write(tmp_path / "a.tif", ground())
    second = write(tmp_path / "b.tif", ground())
    with rasterio.open(second, "r+") as file:
        mask = np.full((420, 520), 255, np.uint8)
        mask[100:120, 100:120] = 0
        file.write_mask(mask)
    images, share = ScenePair(first, second).read((90, 90, 40, 40))
    assert share == pytest.approx(0.75)
    assert images[:, :, 10:30, 10:30].abs().max() == 0


@pytest.mark.parametrize("turned", ["upside down", "rotated"])
def test_the_second_scene_may_be_upside_down_or_rotated(tmp_path, turned):
    values = ground()[:3]
    smooth = np.stack([np.kron(v[::20, ::20], np.ones((20, 20), np.uint16)) for v in values])
    first = write(tmp_path / "a.tif", smooth)
    grid = rasterio.transform.from_origin(EAST, NORTH, PIXEL, PIXEL)
    if turned == "upside down":
        grid *= rasterio.Affine.translation(0, 420) * rasterio.Affine.scale(1, -1)
        second = write(tmp_path / "b.tif", smooth[:, ::-1], transform=grid)
    else:
        grid *= rasterio.Affine.translation(0, 420) * rasterio.Affine.rotation(-90)
        second = write(tmp_path / "b.tif", smooth[:, ::-1].transpose(0, 2, 1), transform=grid)
    images, share = ScenePair(first, second).read((20, 20, 380, 480))
    assert share == 1
    # GDAL smooths the edges of a scene that is turned by 90 degrees.
    assert (images[0] - images[1]).abs().mean() < (0.03 if turned == "rotated" else 1e-3)
    assert (images[0] - images[1]).abs().median() < 1e-3


@pytest.mark.parametrize("kind", ["palette", "one bit"])
def test_scenes_whose_values_are_no_brightness_are_refused(tmp_path, kind):
    values = (ground()[:1] % 2).astype(np.uint8)
    options = {"nbits": 1} if kind == "one bit" else {"photometric": "PALETTE"}
    first = write(tmp_path / "a.tif", values, **options)
    if kind == "palette":
        with rasterio.open(first, "r+") as file:
            file.write_colormap(1, {0: (10, 20, 30, 255), 1: (200, 100, 0, 255)})
    with pytest.raises(ValueError, match=r"a\.tif has a palette, or values of less than 8 bits"):
        ScenePair(first, first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": 5000}, "do not overlap"),
        ({"transform": rasterio.Affine.identity()}, r"b\.tif has .* but no position in it"),
        ({"crs": None}, "has no coordinate system"),
        ({"dtype": np.float32}, "types float32 and uint16"),
    ],
)
def test_scenes_that_cannot_be_compared_are_refused(tmp_path, options, message):
    values = ground()
    first = write(tmp_path / "a.tif", values)
    second = write(tmp_path / "b.tif", values.astype(options.pop("dtype", np.uint16)), **options)
    with pytest.raises(ValueError, match=message):
        ScenePair(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overlap": 256}, "overlap=256"),
        ({"percentiles": (98, 2)}, "percentiles="),
        ({"shift": "fix"}, "shift='fix'"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_the_error_names_an_argument_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScenePairDataModule("a.tif", "b.tif", **arguments)


@pytest.mark.slow
def test_scenes_of_20000_pixels_need_less_than_1_gb_above_the_imports(tmp_path):
    program = Path(__file__).parents[2] / "harness" / "program_large_scenes.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for option in ("--write", "--read"):  # separate processes, because writing has its own peak
        run = subprocess.run(
            [sys.executable, str(program), str(tmp_path), "20000", option],
            capture_output=True, text=True, check=False, timeout=850, env=environment,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    print(run.stdout)
    numbers = dict(re.findall(r"(\w+) ([\d.]+)", run.stdout))
    assert float(numbers["windows"]) == 90**2
    assert float(numbers["above_imports_mib"]) < 1e9 / 2**20
