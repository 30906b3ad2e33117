import itertools

import cv2
import numpy as np
import pytest

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


def plainly(pixels, clip, tiles):
    """In exact arithmetic: every pixel between the tables of four tiles."""
    padding = [-side % tiles for side in pixels.shape]
    if any(padding):
        padding = [tiles - side % tiles for side in pixels.shape]
    whole = np.pad((pixels + 128.0) // 257, [(0, more) for more in padding], "reflect").astype(int)
    height, width = (side // tiles for side in whole.shape)
    limit = max(int(clip * height * width / 256), 1)
    tables = np.zeros((tiles, tiles, 257))
    for y, x in np.ndindex(tiles, tiles):
        tile = whole[y * height : (y + 1) * height, x * width : (x + 1) * width]
        counts = np.bincount(tile.ravel(), minlength=256)
        more, rest = divmod(int(np.maximum(counts - limit, 0).sum()), 256)
        counts = np.minimum(counts, limit) + more
        for level in range(0, 256, max(256 // max(rest, 1), 1)):
            counts[level] += rest > 0
            rest -= 1
        tables[y, x, :256] = np.minimum(np.cumsum(counts) / tile.size, 1) * 65535
    y, x = np.indices(pixels.shape)
    level, part = np.divmod(pixels.astype(int), 257)
    result = np.zeros(pixels.shape)
    down, right = y / height - 0.5, x / width - 0.5
    for row, weight_of_row in ((np.floor(down), 1 - down % 1), (np.floor(down) + 1, down % 1)):
        for column, weight in ((np.floor(right), 1 - right % 1), (np.floor(right) + 1, right % 1)):
            tile = tuple(index.astype(int).clip(0, tiles - 1) for index in (row, column))
            lower, upper = tables[(*tile, level)], tables[(*tile, level + 1)]
            result += weight_of_row * weight * (lower + (upper - lower) * part / 257)
    return result


@pytest.mark.parametrize(
    ("shape", "tiles", "clip"),
    [
        *itertools.product([(64, 64), (41, 97), (9, 9), (200, 33)], [1, 3, 8], [0.5, 2.0, 1000.0]),
        ((300, 31), 32, 2.0),
        ((3, 40_000), 2, 2.0),
    ],
)
def test_16_bits_are_interpolated_between_the_tables_of_four_tiles_pixel_by_pixel(shape, tiles, clip):
    rng = np.random.default_rng(tiles)
    for pixels in (rng.integers(0, 65536, shape), rng.normal(40_000, 900, shape).clip(0, 65535)):
        deep = pixels.astype(np.uint16)
        exact = plainly(deep, clip, tiles)
        found = clahe(deep, clip, tiles)
        assert np.abs(found - exact).max() < 0.55
        assert np.abs(found - np.rint(exact)).max() <= 1
