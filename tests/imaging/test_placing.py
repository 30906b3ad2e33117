import numpy as np
import pytest

from cxrtool.imaging.fits import FITS, fit_geometry
from cxrtool.imaging.placing import Move, inverse_of, lay_back
from cxrtool.imaging.resize import apply_geometry


def through(pixels, size, fit):
    geometry = fit_geometry(*pixels.shape, size, fit)
    return apply_geometry(pixels, geometry), Move.of(geometry)


def test_the_way_back_leads_through_cut_size_and_frame():
    way = inverse_of([Move.cut((30, 10, 60, 40)), Move((0, 0, 60, 40), (120, 80), (0, 20))])
    # Row 0 of the result was row 30; column 20 was column 10.
    assert (way.top, way.down) == (30, 0.5)
    assert way.left + way.across * 20 == 10
    assert inverse_of([]) == inverse_of([Move((0, 0, 7, 9), (7, 9))])


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("first", [None, *FITS])
@pytest.mark.parametrize("box", [(0, 0, 150, 100), (40, 20, 80, 70)])
def test_what_was_moved_comes_back_to_where_it_was(fit, first, box):
    # A smooth hill, so that resampling does not hide a shift of half a pixel.
    rows, columns = np.mgrid[:150, :100]
    before = np.exp(-((rows - 70) ** 2 / 200 + (columns - 52) ** 2 / 120)).astype(np.float32)
    pixels, moves = before, []
    if first:
        pixels, move = through(pixels, 180, first)
        moves.append(move)
    else:
        top, left, height, width = box
        pixels = pixels[top : top + height, left : left + width]
        moves.append(Move.cut(box))
    after, move = through(pixels, 160, fit)
    back = lay_back(after, [*moves, move], (150, 100), (150, 100))
    seen = back > 0
    assert np.abs(back - before)[seen].max() < 0.02
    # The middle of the hill was seen by all.
    assert seen[60:80, 45:60].all()
    if (fit, first) in {("squash", None), ("pad", None)} and box[0]:
        assert not back[: box[0]].any()
        assert not back[:, : box[1]].any()
        assert back[box[0], 52] > 0


def test_a_smaller_answer_is_the_same_picture():
    values = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    moves = [Move((0, 0, 300, 600), (32, 32))]
    whole, small = (lay_back(values, moves, (300, 600), size) for size in ((300, 600), (30, 60)))
    assert np.abs(whole[5::10, 5::10] - small).max() < 0.01
