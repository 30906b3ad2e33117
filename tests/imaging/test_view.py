import numpy as np
import pytest
from skimage import exposure

from cxrtool.imaging.fits import Form
from cxrtool.imaging.view import content_box, lay_back, see

RNG = np.random.default_rng(0)


def picture(height=90, width=70, dtype=np.uint8):
    return RNG.integers(40, np.iinfo(dtype).max, (height, width)).astype(dtype)


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_answer_lies_where_the_network_saw_it(fit, dtype):
    pixels = np.full((120, 80), 50, dtype)
    pixels[30:60, 20:50] = np.iinfo(dtype).max
    form = Form(64, fit)
    placed = see(pixels, form)
    assert placed.values.shape == (64, 64)
    assert placed.values.dtype == np.float32
    back = lay_back(placed.values, placed, form)
    assert back.shape == pixels.shape
    bright = pixels == pixels.max()
    found = back > 0.6
    assert (found & bright).sum() / (found | bright).sum() > 0.85


def test_black_borders_are_cut_and_answered_with_nothing():
    pixels = np.zeros((100, 80), np.uint8)
    pixels[10:90, 5:65] = picture(80, 60)
    assert content_box(pixels) == (10, 5, 80, 60)
    form = Form(32, crop_borders=True)
    placed = see(pixels, form)
    back = lay_back(np.ones((32, 32), np.float32), placed, form)
    assert back[10:90, 5:65].min() == 1
    assert back.sum() == 80 * 60
    assert np.array_equal(placed.values, see(pixels[10:90, 5:65], Form(32)).values)


def test_a_black_picture_has_no_border():
    black = np.zeros((20, 30), np.uint16)
    assert content_box(black) == (0, 0, 20, 30)
    assert not see(black, Form(16, crop_borders=True, equalise=True)).values.any()


def test_a_histogram_is_equalised_at_the_size_of_the_input():
    dark = (picture(64, 64) // 4).astype(np.uint8)
    values = see(dark, Form(64, equalise=True)).values
    expected = exposure.equalize_hist(dark, nbins=256)
    # The two place the darkest level differently: at 0 here, at its own share there.
    assert np.abs(values - expected).max() < 0.03
    deep = see(dark.astype(np.uint16) * 257, Form(64, equalise=True)).values
    assert np.array_equal(values, deep)


def test_a_negative_is_one_minus_the_picture():
    pixels = picture()
    plain, negative = see(pixels, Form(32)).values, see(pixels, Form(32, invert=True)).values
    assert np.allclose(plain + negative, 1)
    assert 0 <= plain.min() <= plain.max() <= 1
