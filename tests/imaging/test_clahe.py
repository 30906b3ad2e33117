import cv2
import numpy as np
import pytest

from cxrtool.imaging import clahe as module
from cxrtool.imaging.clahe import clahe


def picture(shape=(203, 160), seed=0):
    rng = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 12)
    scene = (scene - scene.min()) / (scene.max() - scene.min())
    return np.rint(40 + 120 * scene + rng.normal(0, 3, shape)).clip(0, 255).astype(np.uint8)


def test_with_8_bits_it_is_opencv_s():
    image = picture()
    assert (clahe(image, 3.0, 4) == cv2.createCLAHE(3.0, (4, 4)).apply(image)).all()


@pytest.mark.parametrize("shape", [(160, 160), (203, 160), (160, 203), (61, 77)])
@pytest.mark.parametrize(("clip", "tiles"), [(2.0, 8), (1.0, 3), (40.0, 8)])
def test_with_16_bits_it_is_the_same_but_for_rounding(shape, clip, tiles):
    image = picture(shape)
    deep = clahe(image.astype(np.uint16) * 257, clip, tiles)
    assert deep.dtype == np.uint16
    # OpenCV rounds twice: the tables, and what lies between them.
    assert np.abs(deep / 257 - clahe(image, clip, tiles)).max() <= 1.01


def test_how_many_of_the_levels_are_in_use_does_not_matter():
    image = picture((256, 256))
    rng = np.random.default_rng(1)
    fine = image.astype(np.uint16) * 257 + rng.integers(-120, 121, image.shape).astype(np.int16).astype(np.uint16)
    coarse = fine & 0xFFF0
    # OpenCV's own, on 65,536 cells, is levels of 255 apart.
    theirs = cv2.createCLAHE(2.0, (8, 8)).apply
    assert np.abs(theirs(coarse) / 257 - theirs(image)).mean() > 4
    assert np.abs(clahe(fine) / 257 - clahe(image)).mean() < 1
    assert np.abs(clahe(coarse).astype(float) - clahe(fine)).max() / 257 < 2


def test_the_finer_levels_of_16_bits_are_kept():
    fine = np.linspace(10_000, 11_000, 256 * 256).astype(np.uint16).reshape(256, 256)
    assert len(np.unique(clahe(fine))) > 500


@pytest.mark.parametrize("shape", [(64, 64), (41, 97), (9, 9), (200, 33)])
@pytest.mark.parametrize("tiles", [1, 3, 8])
def test_16_bits_are_interpolated_between_the_tables_of_four_tiles_pixel_by_pixel(shape, tiles):
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    padding = [-side % tiles for side in shape]
    if any(padding):
        padding = [tiles - side % tiles for side in shape]
    height, width = ((side + more) // tiles for side, more in zip(shape, padding, strict=True))
    bins = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    tables = module._tables(bins, padding, (height, width), 2.0, tiles)
    expected = np.empty(shape)
    for y, x in np.ndindex(shape):
        level, rest = divmod(int(pixels[y, x]), 257)

        def value(row, column, level=level, rest=rest):
            table, slope = tables[min(max(row, 0), tiles - 1), min(max(column, 0), tiles - 1)].astype(float)
            return table[level] + slope[level] * rest / 257

        down, right = y / height - 0.5, x / width - 0.5
        row, column = int(np.floor(down)), int(np.floor(right))
        upper, lower = (
            value(r, column) + (right - column) * (value(r, column + 1) - value(r, column)) for r in (row, row + 1)
        )
        expected[y, x] = upper + (down - row) * (lower - upper)
    assert np.abs(clahe(pixels, 2.0, tiles) - expected).max() < 0.6
