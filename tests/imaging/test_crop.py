import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrtool.imaging.crop import cut, erase_inside, keep_inside, lung_box
from cxrtool.imaging.fits import MARGINS_OF


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.6), st.sampled_from(MARGINS_OF))
def test_the_box_is_the_smallest_around_the_lungs_and_a_margin(seed, margin, margin_of):
    rng = np.random.default_rng(seed)
    mask = np.zeros(tuple(rng.integers(1, 90, 2)), np.uint8)
    points = [rng.integers(0, side, 4) for side in mask.shape]
    mask[points[0], points[1]] = 255
    top, left, height, width = lung_box(mask, margin, margin_of)
    y, x = np.nonzero(mask)
    for first, length, side, places in ((top, height, mask.shape[0], y), (left, width, mask.shape[1], x)):
        reach = int(margin * (side if margin_of == "image" else places.max() - places.min() + 1) + 0.5)
        assert first == max(0, places.min() - reach)
        assert first + length == min(side, places.max() + 1 + reach)


def test_an_empty_mask_gives_the_whole_picture():
    assert lung_box(np.zeros((30, 50), np.uint8)) == (0, 0, 30, 50)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_inside_and_outside_make_up_the_picture(dtype):
    pixels = np.random.default_rng(0).integers(1, np.iinfo(dtype).max, (40, 50), dtype)
    mask = np.zeros((40, 50), np.uint8)
    cv2.circle(mask, (20, 20), 12, 255, -1)
    inside, outside = keep_inside(pixels, mask), erase_inside(pixels, mask)
    assert inside.dtype == outside.dtype == dtype
    assert np.array_equal(inside + outside, pixels)
    assert np.array_equal(inside > 0, mask > 0)


def test_a_cut_is_a_copy():
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    part = cut(pixels, (1, 2, 2, 3))
    assert part.tolist() == [[7, 8, 9], [12, 13, 14]]
    part[:] = 0
    assert pixels[1, 2] == 7
