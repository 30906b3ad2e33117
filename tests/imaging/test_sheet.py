import numpy as np

from cxrtool.imaging.sheet import FOUND, TILE, draw_sheet, fitting, font, grey_tile, outline


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


def test_text_that_is_too_long_is_cut():
    cut = fitting("a" * 100, 12, 80)
    assert cut.endswith("…")
    assert font(12).getlength(cut) <= 80
    assert fitting("short", 12, 80) == "short"
