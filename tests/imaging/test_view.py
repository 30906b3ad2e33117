import numpy as np
import pytest
from skimage import exposure

from cxrtool.errors import ImageError
from cxrtool.imaging.fits import Form
from cxrtool.imaging.view import content_box, lay_back, levels, see, show_mask, show_target

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


def body(height=60, width=80, dtype=np.uint8):
    """A picture without symmetry, so that any misplacement shows."""
    y, x = np.mgrid[:height, :width]
    values = 0.1 + 0.5 * x / width + 0.3 * (y / height) ** 2
    return (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("form", [Form(31), Form(31, "pad"), Form(31, crop_borders=True)])
def test_a_mask_goes_where_its_picture_goes(form):
    pixels = np.zeros((60, 80), np.uint8)
    pixels[10:50, 20:70] = 60
    pixels[20:35, 30:45] = 255
    placed = see(pixels, form)
    shown = show_mask((pixels == 255) * np.uint8(1), placed, form)
    # What is inside is bright, what is outside is not; at the rim both are averaged alike.
    assert placed.values[shown == 255].min() == 1.0
    assert placed.values[shown == 0].max() <= 60 / 255 + 1e-6
    expected = (placed.values - 60 / 255) / (1 - 60 / 255)
    rim = (shown > 0) & (shown < 255)
    assert np.abs(shown[rim] / 255 - expected[rim]).max() < 0.02


def test_a_mask_of_another_size_is_brought_to_its_picture():
    placed = see(body(), Form(32))
    small = np.zeros((30, 40), np.uint8)
    small[:15] = 1
    shown = show_mask(small, placed, Form(32))
    assert (shown[:15] == 255).all()
    assert (shown[17:] == 0).all()


def test_an_empty_mask_stays_empty():
    assert not show_mask(np.zeros((60, 80), np.uint8), see(body(), Form(32)), Form(32)).any()


def test_a_mask_is_widened_by_half_the_square_on_each_side():
    mask = np.zeros((32, 32), np.uint8)
    mask[16, 16] = 1
    shown = show_mask(mask, see(body(32, 32), Form(32)), Form(32), 5)
    assert np.argwhere(shown).min(0).tolist() == [14, 14]
    assert np.argwhere(shown).max(0).tolist() == [18, 18]


def test_other_proportions_are_refused():
    placed = see(body(), Form(32))
    with pytest.raises(ImageError, match="its mask is 60 x 60, its image 80 x 60"):
        show_mask(np.zeros((60, 60), np.uint8), placed, Form(32))
    with pytest.raises(ImageError, match="its target is 60 x 60"):
        show_target(np.zeros((60, 60), np.uint8), placed, Form(32))


@pytest.mark.parametrize("form", [Form(32, invert=True), Form(32), Form(32, "pad", invert=True)])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_another_picture_takes_the_form_and_polarity_of_the_first(form, negative, dtype):
    pixels = body(dtype=dtype)
    placed = see(pixels, form)
    shown = show_target(~pixels if negative else pixels, placed, form)
    assert shown.dtype == dtype
    assert np.abs(shown / np.iinfo(dtype).max - placed.values).max() < 0.01


def test_a_stranger_is_refused():
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
    with pytest.raises(ImageError, match="does not match its image"):
        show_target(noise, see(body(), Form(32)), Form(32))


@pytest.mark.parametrize(("depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_levels_are_those_of_the_picture(depth, dtype):
    pixels = np.arange(1024, dtype=dtype).reshape(32, 32) * dtype(1 if depth == 8 else 63)
    assert np.array_equal(levels(see(pixels, Form(32)), depth), pixels)
    assert np.array_equal(levels(see(pixels, Form(32, invert=True)), depth), ~pixels)
