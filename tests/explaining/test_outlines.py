import cv2
import numpy as np
import pytest

from cxrtool.explaining.outlines import REFERENCE, TILE, Outlined, draw_sheet, draw_tile, thumbnail
from cxrtool.explaining.overlay import OUTLINE


def square(first, last, side=100):
    mask = np.zeros((side, side), np.uint8)
    mask[first:last, first:last] = 255
    return mask


def where(tile, colour):
    """The pixels of about a colour."""
    return np.argwhere(np.abs(tile.astype(int) - colour).max(2) < 60)


@pytest.mark.parametrize("side", [60, 200, 1000])
def test_outlines_lie_on_the_edges_of_the_masks_whatever_size_these_have(side):
    pixels = thumbnail(np.full((100, 100), 128, np.uint8))
    mask = thumbnail(cv2.resize(square(25, 75), (side, side), interpolation=cv2.INTER_NEAREST), mask=True)
    tile = draw_tile(Outlined(pixels, mask, None, ()))
    assert tile.shape == (TILE, TILE, 3)
    found = where(tile, OUTLINE)
    np.testing.assert_allclose(found.min(0), TILE / 4, atol=2.5)
    np.testing.assert_allclose(found.max(0), TILE * 3 / 4, atol=2.5)
    assert (tile[TILE // 2, TILE // 2] == 128).all()


def test_the_reference_has_a_colour_of_its_own_below_what_was_found():
    pixels = thumbnail(np.zeros((100, 100), np.uint16))
    both = draw_tile(Outlined(pixels, square(25, 75), square(10, 90), ()))
    assert len(where(both, OUTLINE))
    assert len(where(both, REFERENCE))
    same = draw_tile(Outlined(pixels, square(25, 75), square(25, 75), ()))
    assert not len(where(same, REFERENCE))


@pytest.mark.parametrize(("count", "columns"), [(1, 2), (5, 5), (13, 6)])
def test_a_sheet_has_room_for_all(count, columns):
    shown = [
        Outlined(thumbnail(np.full((50, 100), 200, np.uint8)), square(2, 9, 10), None, ("id", "warning " * 20))
        for _ in range(count)
    ]
    sheet = draw_sheet(shown, "title")
    assert sheet.shape[1] > columns * TILE
    assert (sheet == 200).all(2).sum() > 0.6 * count * TILE * TILE / 2


def test_a_thumbnail_keeps_proportions():
    assert thumbnail(np.zeros((500, 1000), np.uint8)).shape == (TILE // 2, TILE)
    assert set(np.unique(thumbnail(square(3, 50), mask=True))) == {0, 255}
