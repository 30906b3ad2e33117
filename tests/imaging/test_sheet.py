import numpy as np

from cxrtool.imaging.sheet import FOUND, SIDE, TILE, draw_sheet, draw_strips, fitting, font, grey_tile, outline


def test_a_tile_keeps_proportions_and_grey_values():
    tile = grey_tile(np.full((100, 50), 40000, np.uint16))
    assert tile.shape == (TILE, TILE // 2, 3)
    assert np.unique(tile).tolist() == [40000 // 257]


def test_an_outline_runs_along_the_rim_and_leaves_the_inside():
    tile = grey_tile(np.zeros((TILE, TILE), np.uint8))
    mask = np.zeros((TILE, TILE), np.uint8)
    mask[50:150, 60:120] = 1
    outline(tile, mask, FOUND)
    red, green, _ = tile[49:52, 90].max(0).tolist()
    assert red > 150 > 2 * green
    assert not tile[100, 90].any()
    assert not tile[20, 90].any()


def test_a_sheet_holds_every_picture():
    tiles = [(np.full((40, 60, 3), 10 * k, np.uint8), [f"image {k}", "Dice 0.9"]) for k in range(1, 8)]
    sheet = draw_sheet(tiles, "title", columns=3)
    assert [int((sheet == 10 * k).all(2).sum()) >= 40 * 60 for k in range(1, 8)] == [True] * 7


def test_pictures_stand_in_rows_and_columns_under_titles():
    first, second = np.full((SIDE, 200), 50, np.uint8), np.full((SIDE, 200), 90, np.uint8)
    small = np.full((40, SIDE), 130, np.uint8)
    sheet = draw_strips(["as it was", "a step"], [("one", [first, second]), ("x" * 400, [small, small])])
    assert sheet.dtype == np.uint8
    for value, picture in ((50, first), (90, second), (130, small)):
        assert (sheet == value).sum() >= picture.size
    assert np.flatnonzero((sheet == 50).any(0)).max() < np.flatnonzero((sheet == 90).sum(0) > 100).min()
    assert np.flatnonzero((sheet == 90).sum(1) > 100).max() < np.flatnonzero((sheet == 130).sum(1) > 100).min()
    assert (sheet[: SIDE // 12] < 100).any(), "no title is drawn"


def test_text_that_is_too_long_is_cut():
    cut = fitting("a" * 100, 12, 80)
    assert cut.endswith("…")
    assert font(12).getlength(cut) <= 80
    assert fitting("short", 12, 80) == "short"
