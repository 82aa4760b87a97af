"""Images with more than 8 bits or with several bands: choice of bands, missing values, stretch."""

import numpy as np
import pytest
import torch

pytest.importorskip("rasterio")

import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp

from lightning_plugins.datamodules.change_captioning.caption_files import PairRecord
from lightning_plugins.datamodules.change_captioning.image_pairs import read_pair
from lightning_plugins.datamodules.change_captioning.raster_bands import read_raster

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"  # when the test files are written
)


def save(path, bands, colours=None, driver="GTiff", **options):
    count, height, width = bands.shape
    options |= {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver=driver, **options) as file:
        file.write(bands)
        if colours:
            file.colorinterp = colours
    return path


def ramp(bands, dtype=np.uint16, scale=1):
    values = np.arange(bands * 100).reshape(bands, 10, 10) * scale
    return values.astype(dtype)


@pytest.mark.parametrize(("driver", "suffix"), [("GTiff", "tif"), ("PNG", "png")])
@pytest.mark.parametrize("count", [1, 3])
def test_16_bits_fill_the_whole_range_with_one_scale_for_both_images(
    tmp_path, driver, suffix, count
):
    before = save(tmp_path / f"a.{suffix}", ramp(count), driver=driver)
    after = save(tmp_path / f"b.{suffix}", ramp(count, scale=2), driver=driver)
    pair = read_pair(PairRecord("p", before, after))
    assert pair.shape == (2, 3, 10, 10)
    assert pair.min() == 0
    assert pair.max() == 1
    both = np.concatenate([ramp(count)[0].ravel(), ramp(count, scale=2)[0].ravel()])
    low, high = np.percentile(both, (2, 98))
    expected = (ramp(count, scale=2)[0] - low) / (high - low)
    assert torch.allclose(pair[1, 0], torch.tensor(expected).clamp(0, 1).float(), atol=1e-6)


def test_bands_are_those_marked_as_red_green_and_blue_or_the_first_three(tmp_path):
    marks = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    marked = save(tmp_path / "a.tif", ramp(4), marks)
    assert np.array_equal(read_raster(marked).values, ramp(4)[[2, 1, 0]])
    plain = save(tmp_path / "b.tif", ramp(5), photometric="MINISBLACK")
    assert np.array_equal(read_raster(plain).values, ramp(5)[:3])
    assert np.array_equal(read_raster(plain, bands=(5, 1, 2)).values, ramp(5)[[4, 0, 1]])
    assert np.array_equal(read_raster(plain, bands=(4,)).values, ramp(5)[[3, 3, 3]])
    for wrong in ((6, 1, 2), (0, 1, 2), (1, 2)):
        with pytest.raises(ValueError, match=r"one or three numbers from 1 to 5"):
            read_raster(plain, bands=wrong)


def test_missing_values_are_black_and_do_not_change_the_stretch(tmp_path):
    values = ramp(3, np.float32)
    whole = save(tmp_path / "a.tif", values)
    holed = values.copy()
    holed[:, 0, 0], holed[0, 9, 9] = -9999, np.nan
    file = save(tmp_path / "b.tif", holed, nodata=-9999)
    pair = read_pair(PairRecord("p", whole, file))
    assert pair[1, :, 0, 0].tolist() == pair[1, :, 9, 9].tolist() == [0, 0, 0]
    assert torch.allclose(pair[0, :, 1:9], pair[1, :, 1:9])


def test_missing_values_of_8_bits_are_black_where_all_bands_miss_them(tmp_path):
    values = ramp(3, np.uint8) % 100 + 100
    values[:, 0, 0], values[0, 5, 5] = 255, 255
    file = save(tmp_path / "a.tif", values, nodata=255)
    deep = read_raster(file)
    pair = read_pair(PairRecord("p", file, file))
    assert pair[0, :, 0, 0].tolist() == [0, 0, 0]
    assert pair[0, 0, 5, 5] == 1
    assert torch.equal(pair[0], torch.from_numpy(deep.values / 255))


@pytest.mark.parametrize(
    ("marks", "count"), [(None, 1), ([ColorInterp.blue, ColorInterp.green, ColorInterp.red], 3)]
)
def test_grey_and_colour_or_unmarked_and_other_bands_are_not_compared(tmp_path, marks, count):
    first = save(tmp_path / "a.tif", ramp(3), photometric="MINISBLACK")
    second = save(tmp_path / "b.tif", ramp(count), marks)
    with pytest.raises(ValueError, match=r"the bands .* \(1, 2, 3\)|the bands \(1, 2, 3\)"):
        read_pair(PairRecord("p", first, second))


def test_complex_values_are_refused(tmp_path):
    file = save(tmp_path / "a.tif", ramp(3, np.complex64))
    with pytest.raises(ValueError, match=r"a\.tif contains complex numbers"):
        read_pair(PairRecord("p", file, file))


def test_four_bands_of_8_bits_are_not_stretched(tmp_path):
    file = save(tmp_path / "a.tif", ramp(5, np.uint8) % 100, photometric="MINISBLACK")
    pair = read_pair(PairRecord("p", file, file))
    assert torch.equal(pair[0], torch.from_numpy(ramp(5, np.uint8)[:3] % 100) / 255)


def test_a_png_of_16_bits_that_ends_too_early_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 65535, (3, 64, 64)).astype(np.uint16)
    whole = save(tmp_path / "a.png", noise, driver="PNG")
    cut = tmp_path / "b.png"
    cut.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"b\.png is not a readable image"):
        read_pair(PairRecord("p", whole, cut))


def test_a_file_that_names_other_files_is_not_opened(tmp_path):
    inner = save(tmp_path / "a.tif", ramp(3))
    rasterio.shutil.copy(inner, tmp_path / "b.vrt", driver="VRT")
    (tmp_path / "b.vrt").rename(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"b\.tif is not a readable image"):
        read_raster(tmp_path / "b.tif")


def test_a_broken_tiff_and_values_of_two_types_raise_errors(tmp_path):
    first = save(tmp_path / "a.tif", ramp(3))
    second = save(tmp_path / "b.tif", ramp(3, np.float32))
    with pytest.raises(ValueError, match=r"b\.tif.*types float32 and uint16"):
        read_pair(PairRecord("p", first, second))
    second.write_bytes(first.read_bytes()[:120])
    with pytest.raises(ValueError, match=r"b\.tif (is not a readable image|cannot be read)"):
        read_pair(PairRecord("p", first, second))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({}, None),
        ({"east": 0.4}, None),
        ({"east": 3.0}, r"shifted by \+6\.0 pixels to the east and \+0\.0"),
        ({"north": -1.0}, r"\+0\.0 pixels to the east and -2\.0 to the north"),
        ({"east": 500.0}, "do not overlap"),
        ({"pixel": 0.6}, "the pixels are"),
        ({"crs": "EPSG:32651"}, "different coordinate systems"),
        ({"turn": 2}, r"rotated by \(0\.0, 0\.0\) and \(-0\.017"),
        ({"turn": 180}, "the pixels are"),
    ],
)
def test_georeferenced_images_must_show_one_place(tmp_path, dtype, moved, message):
    def georeferenced(name, east=0.0, north=0.0, pixel=0.5, crs="EPSG:32650", turn=0):
        grid = rasterio.transform.from_origin(500000 + east, 4e6 + north, pixel, pixel)
        grid *= rasterio.Affine.rotation(turn)
        return save(tmp_path / name, ramp(3, dtype), crs=crs, transform=grid)

    record = PairRecord("p", georeferenced("a.tif"), georeferenced("b.tif", **moved))
    if message is None:
        assert read_pair(record).shape == (2, 3, 10, 10)
    else:
        with pytest.raises(ValueError, match=message):
            read_pair(record)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rotated_images_of_one_system_must_have_the_same_corner(tmp_path, dtype):
    def rotated(name, east):
        grid = rasterio.transform.from_origin(500000 + east, 4e6, 0.5, 0.5)
        grid *= rasterio.Affine.rotation(90)  # columns point to the north of a north-up image
        return save(tmp_path / name, ramp(3, dtype), crs="EPSG:32650", transform=grid)

    first = rotated("a.tif", 0.0)
    assert read_pair(PairRecord("p", first, rotated("b.tif", 0.4))).shape == (2, 3, 10, 10)
    with pytest.raises(ValueError, match=r"[+-]0\.0 pixels to the east and -2\.0 to the north"):
        read_pair(PairRecord("p", first, rotated("c.tif", -1.0)))
