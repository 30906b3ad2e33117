import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize as skimage_resize

from cxrtool.imaging.fits import FITS, NATIVE, fit_geometry
from cxrtool.imaging.resize import prepare_mask, prepare_pixels, resample

GENERATOR = np.random.default_rng(1)


def smooth(height, width, dtype=np.uint8):
    """A picture whose value is its place, so that a shift or a flip shows."""
    full = np.iinfo(dtype).max
    rows, columns = np.linspace(0, 0.5, height), np.linspace(0, 0.5, width)
    return (np.add.outer(rows, columns) * full).astype(dtype)


def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks():
    pixels = GENERATOR.integers(0, 65536, (96, 64)).astype(np.uint16)
    blocks = pixels.reshape(32, 3, 32, 2).mean(axis=(1, 3))
    assert np.abs(resample(pixels, 32, 32) - blocks).max() <= 0.51


@pytest.mark.parametrize("shape", [(300, 211), (40, 31), (300, 40), (90, 70)])
def test_a_smooth_picture_agrees_with_scikit_image(shape):
    pixels = smooth(*shape)
    expected = skimage_resize(pixels, (64, 64), order=1, anti_aliasing=False, preserve_range=True)
    inside = np.s_[3:-3, 3:-3]
    assert np.abs(resample(pixels, 64, 64)[inside] - expected[inside]).max() < 2


@pytest.mark.parametrize("shape", [(500, 40), (40, 500), (500, 500)])
def test_no_pixel_is_skipped_when_an_axis_shrinks_much(shape):
    # One bright pixel in a hundred, at places that sampling alone would miss or hit by chance.
    pixels = np.zeros(shape, np.uint8)
    pixels.flat[7::100] = 255
    small = resample(pixels, 50, 50)
    assert abs(small.mean() - pixels.mean()) < 0.35


def test_enlarging_does_not_ring():
    pixels = np.full((20, 20), 100, np.uint8)
    pixels[5:9, 5:9] = 200
    large = resample(pixels, 80, 80)
    assert large.min() == 100
    assert large.max() == 200


@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 128), st.sampled_from(sorted(FITS)))
def test_a_geometry_stays_inside_picture_and_canvas(height, width, size, fit):
    geometry = fit_geometry(height, width, size, fit)
    top, left, box_height, box_width = geometry.box
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert min(geometry.inner) >= 1
    assert all(p >= 0 and p + n <= size for p, n in zip(geometry.place, geometry.inner, strict=True))
    if fit != "pad":
        assert geometry.inner == (size, size)
    if fit == "pad":
        exact = [side * size / max(height, width) for side in (height, width)]
        assert all(abs(n - wanted) <= 0.5 or n == 1 for n, wanted in zip(geometry.inner, exact, strict=True))
    if fit == "crop":
        assert box_height == box_width


@pytest.mark.parametrize("fit", sorted(FITS))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (20, 30), (64, 64), (1, 50)])
def test_every_fit_gives_a_square_of_the_same_type(fit, dtype, shape):
    result = prepare_pixels(smooth(*shape, dtype), 64, fit)
    assert result.shape == (64, 64)
    assert result.dtype == dtype
    assert result.flags.c_contiguous


def test_pad_draws_black_on_both_sides_and_crop_keeps_the_middle():
    pixels = np.full((100, 50), 200, np.uint8)
    pixels[25:75] = 90
    padded = prepare_pixels(pixels, 40, "pad")
    assert np.array_equal(padded.any(axis=0), [False] * 10 + [True] * 20 + [False] * 10)
    assert np.array_equal(prepare_pixels(pixels, 40, "crop"), np.full((40, 40), 90))


def test_native_is_the_picture_itself():
    pixels = smooth(33, 44)
    assert np.array_equal(prepare_pixels(pixels, NATIVE, "pad"), pixels)


@pytest.mark.parametrize("fit", sorted(FITS))
@pytest.mark.parametrize("shape", [(200, 140), (50, 90), (300, 40)])
def test_a_mask_lies_where_its_picture_lies(fit, shape):
    mask = np.zeros(shape, np.uint8)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 5 : shape[1] // 2] = 255
    picture = prepare_pixels(mask, 96, fit)
    result = prepare_mask(mask, *shape, 96, fit)
    assert set(np.unique(result)) == {0, 255}
    # Where the picture is surely in or out, so is the mask; between lies one row of mixed pixels.
    assert np.all(result[picture == 255] == 255) or fit == "squash"
    assert np.mean((picture > 127) != (result > 127)) < 0.02


@pytest.mark.parametrize("highest", [1, 2, 255, 65535])
def test_a_mask_means_what_it_shows_whatever_its_values(highest):
    mask = np.zeros((40, 40), np.uint16)
    mask[10:20] = highest
    assert np.array_equal(prepare_mask(mask, 40, 40, NATIVE, "squash") == 255, mask > 0)
    assert not prepare_mask(np.zeros((40, 40), np.uint8), 40, 40, NATIVE, "squash").any()


def test_a_mask_of_another_size_is_brought_to_its_picture():
    mask = np.zeros((20, 30), np.uint8)
    mask[:10] = 255
    result = prepare_mask(mask, 60, 90, NATIVE, "squash")
    assert result.shape == (60, 90)
    assert np.array_equal(result[:, 0] == 255, np.arange(60) < 30)


def test_threads_do_not_matter():
    pixels = GENERATOR.integers(0, 256, (700, 900), dtype=np.uint8)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = resample(pixels, 224, 224)
        cv2.setNumThreads(4)
        assert np.array_equal(resample(pixels, 224, 224), one)
    finally:
        cv2.setNumThreads(before)
