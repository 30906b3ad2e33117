import numpy as np

from cxrtool.imaging.strips import SIDE, draw_strips


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
