import numpy as np
import pytest

from cxrtool.explaining import maps
from cxrtool.imaging.fits import FITS, fit_geometry
from cxrtool.imaging.placing import Move
from cxrtool.imaging.resize import prepare_pixels


def fitted(height, width, size, fit):
    """How a picture became a square."""
    return [Move.of(fit_geometry(height, width, size, fit))]


def spot(height, width, y, x):
    """A picture with one bright square around a place."""
    picture = np.zeros((height, width), np.uint8)
    picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    return picture


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("height", "width"), [(200, 120), (120, 200), (160, 160), (1500, 900)])
def test_a_map_returns_to_where_its_picture_was_taken_from(fit, height, width):
    # In the middle square, which every way of fitting keeps.
    y, x = height // 2 + min(height, width) // 5, width // 2 - min(height, width) // 4
    picture = spot(height, width, y, x)
    values = prepare_pixels(picture, 64, fit).astype(np.float32)
    laid = maps.lay_on(values, fitted(height, width, 64, fit), height, width)
    assert laid.shape == maps.kept_size(height, width)
    found = maps.figures(laid, height, width, None)
    cell = max(height, width) / 64
    assert abs(found.peak[0] - x) <= cell + 4
    assert abs(found.peak[1] - y) <= cell + 4
    # Its weight lies around the place, not shifted by half a cell.
    rows, _ = np.indices(laid.shape)
    centre = (rows * laid).sum() / laid.sum() * height / laid.shape[0]
    assert abs(centre - y) <= cell


def test_what_the_network_did_not_see_is_zero():
    laid = maps.lay_on(np.ones((32, 32), np.float32), fitted(100, 60, 32, "crop"), 100, 60)
    assert not laid[:20].any()
    assert not laid[80:].any()
    assert (laid[20:80] == 1).all()


def test_the_border_that_padding_drew_is_no_part_of_the_picture():
    values = np.ones((40, 40), np.float32)
    values[:, :10] = values[:, 30:] = 9.0
    assert (maps.lay_on(values, fitted(80, 40, 40, "pad"), 80, 40) == 1).all()


def test_large_pictures_keep_a_smaller_map():
    assert maps.kept_size(768, 100) == (768, 100)
    assert maps.kept_size(4000, 2000) == (768, 384)
    assert maps.kept_size(10000, 1) == (768, 1)


def test_figures_are_those_counted_by_hand():
    values = np.array([[0, 1, 0], [2, 5, 0], [0, 0, 2]], np.float32)
    mask = np.array([[255, 255, 0], [255, 0, 0], [0, 0, 0]], np.uint8)
    found = maps.figures(values, 30, 30, mask)
    assert found.peak == (15, 15)
    assert found.energy_inside == pytest.approx(3 / 10)
    assert found.peak_inside is False
    assert found.mask_share == pytest.approx(3 / 9)
    assert maps.figures(values, 30, 30, 255 - mask) == maps.Figures((15, 15), 0.7, True, 6 / 9)


def test_without_a_mask_or_energy_nothing_is_measured():
    values = np.eye(3, dtype=np.float32)
    assert maps.figures(values, 3, 3, None) == maps.Figures((0, 0), None, None, None)
    assert maps.figures(values, 3, 3, np.zeros((3, 3), np.uint8)) == maps.Figures((0, 0), None, None, None)
    assert maps.figures(values * 0, 3, 3, np.ones((3, 3), np.uint8)) == maps.Figures(None, None, None, 1.0)


def test_scales():
    values = np.array([[1, 2], [3, 5]], np.float32)
    np.testing.assert_allclose(maps.rescale(values, None), [[0, 0.25], [0.5, 1]])
    np.testing.assert_allclose(maps.rescale(values, 4.0), [[0.25, 0.5], [0.75, 1]])
    assert not maps.rescale(values * 0, None).any()
    assert not maps.rescale(values * 0 + 3, None).any()
    assert maps.highest_of([0.0, 2.0, float("nan")]) == 2.0
    assert maps.highest_of([0.0]) == maps.highest_of([]) == 1.0


def test_maps_that_say_nothing_are_told():
    values = np.ones((3, 3), np.float32)
    assert maps.doubt(values * 0, "covid") == "empty map: no region of the image supports covid"
    assert maps.doubt(values, "covid") == "flat map: the same value everywhere"
    assert maps.doubt(np.eye(3, dtype=np.float32), "covid") == ""
