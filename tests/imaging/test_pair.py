import numpy as np
import pytest

from cxrtool.errors import ImageError
from cxrtool.imaging.fits import Form
from cxrtool.imaging.pair import levels, show_mask, show_target
from cxrtool.imaging.view import see


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
