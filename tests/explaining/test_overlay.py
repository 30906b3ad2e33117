import cv2
import matplotlib
import numpy as np
import pytest

from cxrtool.explaining import overlay
from cxrtool.explaining.overlay import (
    OUTLINE,
    REFERENCE,
    Exhibit,
    Layer,
    Outlined,
    draw_outlines,
    draw_tile,
    thumbnail,
)
from cxrtool.explaining.overlay import OUTLINED_TILE as TILE

RAMP = np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(40, 30)
GREY = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)


def test_the_colours_are_matplotlib_s():
    expected = matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(overlay.table() - expected).max() <= 1


def test_lightness_grows_evenly():
    lightness = cv2.cvtColor(overlay.table()[None], cv2.COLOR_RGB2Lab)[0, :, 0].astype(int)
    steps = np.diff(lightness)
    assert steps.min() >= 0
    assert steps.max() <= 2


def test_an_empty_map_leaves_the_picture_as_it_is():
    assert np.array_equal(overlay.blend(GREY, np.zeros_like(RAMP)), np.repeat(GREY[..., None], 3, 2))


def test_the_higher_the_value_the_more_of_its_colour():
    flat = np.full((40, 30), 128, np.uint8)
    laid = overlay.blend(flat, RAMP).astype(float)
    far = np.abs(laid - 128).sum(-1)
    assert far[0, 0] == 0
    assert far[-1, -1] > far[20, 15] > far[2, 0] > 0
    share = overlay.STRONGEST
    np.testing.assert_allclose(laid[-1, -1], 128 * (1 - share) + overlay.table()[255] * share, atol=1)


def test_sixteen_bits_look_like_eight():
    assert np.array_equal(overlay.blend(GREY.astype(np.uint16) * 257, RAMP), overlay.blend(GREY, RAMP))


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (500, 700), (5, 400)])
def test_an_overlay_shows_both_pictures_and_the_scale(height, width):
    pixels = np.full((height, width), 90, np.uint8)
    values = np.zeros((height, width), np.float32)
    picture = overlay.draw_overlay(Exhibit(pixels, values, caption=("a", "b")), 2.5)
    factor = max(1, overlay.SMALLEST / max(height, width))
    shown = round(height * factor)
    assert picture.shape[0] == 2 * overlay.LINE + overlay.GAP + shown + 2 * overlay.GAP
    grey = (picture == 90).all(-1)
    assert grey.sum() == 2 * shown * round(width * factor)
    bar = picture[2 * overlay.LINE + 2 * overlay.GAP :, -overlay.GAP - 14 - overlay.GAP - 64 :]
    assert (bar == overlay.table()[255]).all(-1).any()
    assert (bar == overlay.table()[0]).all(-1).any()


def test_the_mask_is_outlined_and_the_peak_marked_on_the_overlay_alone():
    mask = np.zeros((400, 400), np.uint8)
    mask[100:300, 100:300] = 255
    pixels = np.full((400, 400), 90, np.uint8)
    exhibit = Exhibit(pixels, np.zeros((400, 400), np.float32), mask, (0.25, 0.5))
    picture = overlay.draw_overlay(exhibit, 1.0)
    left = picture[2 * overlay.GAP : 2 * overlay.GAP + 400, overlay.GAP : overlay.GAP + 400]
    right = picture[2 * overlay.GAP : 2 * overlay.GAP + 400, 400 + 2 * overlay.GAP : 800 + 2 * overlay.GAP]
    assert (left == 90).all()
    assert (right[200, 100] == overlay.PEAK).all()
    np.testing.assert_allclose(right[100, 200], overlay.OUTLINE, atol=40)
    assert (right[50, 50] == 90).all()


def test_a_sheet_holds_every_picture():
    exhibits = [
        Exhibit(np.full((50, 50 + k), 40 + k, np.uint8), np.zeros((50, 50 + k), np.float32), caption=(str(k), "x" * 99))
        for k in range(6)
    ]
    picture = overlay.draw_sheet(exhibits, "a very long title " * 20)
    for k in range(6):
        assert (picture == 40 + k).all(-1).sum() >= 2 * overlay.TILE * (overlay.TILE * 50 // (50 + k))
    assert overlay.draw_sheet(exhibits[:1], "one").shape[1] >= 640


def test_a_picture_is_written_as_it_is(tmp_path):
    picture = overlay.draw_overlay(Exhibit(GREY, RAMP, caption=("Krankheit ß 肺",)), 1.0)
    size = overlay.write_picture(tmp_path / "a.png", picture)
    assert size == (tmp_path / "a.png").stat().st_size
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)


def test_further_maps_stand_beside_the_first_each_with_its_peak():
    pixels = np.full((400, 400), 90, np.uint8)
    one, other = np.zeros((2, 400, 400), np.float32)
    other[:, 300:] = 1
    exhibit = Exhibit(pixels, one, None, (0.25, 0.5), others=[Layer(other, (0.75, 0.25))])
    picture = overlay.draw_overlay(exhibit, None)
    head = 2 * overlay.GAP
    panels = [picture[head : head + 400, overlay.GAP + k * (400 + overlay.GAP) :][:, :400] for k in range(3)]
    assert (panels[0] == 90).all()
    assert tuple(panels[1][200, 100]) == tuple(panels[2][100, 300]) == overlay.PEAK
    assert tuple(panels[1][100, 300]) == (90, 90, 90)
    assert (panels[2][:, 310:] != 90).any(-1).all()
    # Without a value in common the scale has words.
    assert not np.array_equal(picture, overlay.draw_overlay(exhibit, 1.0))


def test_a_sheet_has_room_for_all_maps():
    def exhibit(others):
        return Exhibit(GREY, RAMP, caption=("a",), others=[Layer(RAMP)] * others)

    pair, three = (overlay.draw_sheet([exhibit(others)] * 5, "title") for others in (0, 1))
    assert pair.shape[1] == 4 * (2 * overlay.TILE + 2 * overlay.GAP) + overlay.GAP
    assert three.shape[1] == 2 * (3 * overlay.TILE + 2 * overlay.GAP) + overlay.GAP
    assert three.shape[0] > pair.shape[0]


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
    sheet = draw_outlines(shown, "title")
    assert sheet.shape[1] > columns * TILE
    assert (sheet == 200).all(2).sum() > 0.6 * count * TILE * TILE / 2


def test_a_thumbnail_keeps_proportions():
    assert thumbnail(np.zeros((500, 1000), np.uint8)).shape == (TILE // 2, TILE)
    assert set(np.unique(thumbnail(square(3, 50), mask=True))) == {0, 255}


def test_the_outline_of_a_reference_is_on_the_picture_and_on_every_map():
    reference = np.zeros((400, 300), np.uint8)
    reference[100:200, 50:150] = 255
    pixels, values = np.full((400, 300), 90, np.uint8), np.zeros((400, 300), np.float32)
    shown = Exhibit(pixels, values, others=[Layer(values)], references=[reference])
    picture = overlay.draw_overlay(shown, None)

    def is_outline(drawn):
        # Anti-aliased lines have nearly the colour.
        return np.abs(drawn.astype(int) - overlay.POINTED).max(-1) < 40

    found = np.argwhere(is_outline(picture))
    for panel in range(3):
        left = overlay.GAP + panel * (300 + overlay.GAP)
        own = found[(found[:, 1] >= left) & (found[:, 1] < left + 300)] - (picture.shape[0] - 400 - overlay.GAP, left)
        assert own.min(0) == pytest.approx((100, 50), abs=1)
        assert own.max(0) == pytest.approx((199, 149), abs=1)
    alone = overlay.draw_overlay(Exhibit(pixels, values), None)
    assert not is_outline(alone).any()
