"""What an audit has seen of the pictures, and what each probe is shown: no more than it may see."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.auditing.catalogue import PROBES
from cxrtool.auditing.views import BORDER, FRAME, MARGIN


def disturbed(pictures, where):
    """The same pictures with other grey values in a region, (64, 64) or (n, 64, 64)."""
    other = np.random.default_rng(9).random(pictures.thumbs.shape, np.float32)
    return replace(pictures, thumbs=np.where(where, other, pictures.thumbs))


@pytest.mark.parametrize(("name", "width"), [("border", BORDER), ("centre-blacked", FRAME)])
def test_a_frame_sees_nothing_of_the_inside(make_pictures, name, width):
    pictures = make_pictures(10)
    inside = np.zeros((64, 64), bool)
    inside[width:-width, width:-width] = True
    before = PROBES[name].see(pictures)
    assert (PROBES[name].see(disturbed(pictures, inside)).features == before.features).all()
    assert (PROBES[name].see(disturbed(pictures, ~inside)).features != before.features).any()
    assert before.features.shape == (10, 64 * 64 - (64 - 2 * width) ** 2)
    assert (before.shown[:, inside] == 0).all()
    held = pictures.lungs[:, ~inside].sum() / pictures.lungs.sum()
    assert before.lung == pytest.approx(held)


def test_erased_lungs_leave_no_trace(make_pictures):
    pictures = make_pictures(10)
    lungs = pictures.lungs > 0
    before, after = (PROBES["lungs-erased"].see(some) for some in (pictures, disturbed(pictures, lungs)))
    assert (before.features == after.features).all()
    # Nor does the ground between and close around them, within the box.
    box = np.zeros_like(lungs)
    for i, lung in enumerate(lungs):
        rows, columns = np.flatnonzero(lung.any(1)), np.flatnonzero(lung.any(0))
        box[i, rows[0] - MARGIN : rows[-1] + 1 + MARGIN, columns[0] - MARGIN : columns[-1] + 1 + MARGIN] = True
    assert (PROBES["lungs-erased"].see(disturbed(pictures, box)).features == before.features).all()
    assert (before.shown[~box] == pictures.thumbs[~box]).all()


def test_a_hole_in_an_even_picture_cannot_be_seen(make_pictures):
    pictures = make_pictures(4)
    slope = np.add.outer(np.linspace(0, 0.5, 64), np.linspace(0, 0.4, 64)).astype(np.float32)
    even = replace(pictures, thumbs=np.tile(slope, (4, 1, 1)))
    np.testing.assert_allclose(PROBES["lungs-erased"].see(even).shown, even.thumbs, atol=1e-5)


def test_where_no_lungs_were_found_all_is_erased_in_which_they_may_lie(make_pictures):
    pictures = make_pictures(6)
    lungs = pictures.lungs.copy()
    lungs[0] = 0
    pictures = replace(pictures, lungs=lungs)
    centre = np.zeros((64, 64), bool)
    centre[FRAME:-FRAME, FRAME:-FRAME] = True
    before = PROBES["lungs-erased"].see(pictures)
    assert (PROBES["lungs-erased"].see(disturbed(pictures, centre)).shown[0] == before.shown[0]).all()
    assert before.reason == "no lungs were found in 1 of 6 images"


def test_lungs_that_fill_the_picture_leave_nothing(make_pictures):
    pictures = make_pictures(3)
    view = PROBES["lungs-erased"].see(replace(pictures, lungs=np.ones_like(pictures.lungs)))
    assert (view.shown == 0).all()


def test_lungs_that_reach_an_edge_are_filled_from_the_other_side(make_pictures):
    pictures = make_pictures(1)
    lungs = np.zeros_like(pictures.lungs)
    lungs[:, 0:40, 20:40] = 1
    view = PROBES["lungs-erased"].see(replace(pictures, lungs=lungs))
    assert np.isfinite(view.shown).all()
    assert view.shown[0, : 40 + MARGIN, 20 - MARGIN : 40 + MARGIN].std() > 0


def test_lungs_only_sees_the_lungs_only(make_pictures):
    pictures = make_pictures(10)
    outside = pictures.lungs == 0
    before = PROBES["lungs-only"].see(pictures).features
    assert (PROBES["lungs-only"].see(disturbed(pictures, outside)).features == before).all()
    assert (PROBES["lungs-only"].see(disturbed(pictures, ~outside)).features != before).any()


def test_the_outline_has_no_grey_value(make_pictures):
    pictures = make_pictures(10)
    everywhere = np.ones((64, 64), bool)
    before = PROBES["mask-shape"].see(pictures).features
    assert (PROBES["mask-shape"].see(disturbed(pictures, everywhere)).features == before).all()
    larger = np.maximum(pictures.lungs, np.roll(pictures.lungs, 4, axis=1))
    larger[5:] = pictures.lungs[5:]
    area = PROBES["mask-shape"].see(replace(pictures, lungs=larger)).features[:, 0]
    assert area[:5].min() > area[5:].max()


@pytest.mark.parametrize("name", ["lungs-erased", "lungs-only", "mask-shape"])
def test_without_lungs_it_is_said(make_pictures, name):
    pictures = make_pictures(10)
    view = PROBES[name].see(replace(pictures, lungs=None, masks="the manifest has no masks of the lungs"))
    assert view.features is None
    assert view.reason == "the manifest has no masks of the lungs"
    few = pictures.lungs.copy()
    few[:6] = 0
    view = PROBES[name].see(replace(pictures, lungs=few))
    assert view.features is None
    assert view.reason == "no lungs were found in 6 of 10 images"


def test_files_that_are_all_alike_say_nothing(make_pictures):
    pictures = make_pictures(10)
    view = PROBES["size-and-shape"].see(pictures)
    assert view.features is None
    assert view.alike
    kinds = ("jpeg", *pictures.kind[1:])
    assert PROBES["size-and-shape"].see(replace(pictures, kind=kinds)).features.shape[0] == 10


def test_metadata_are_columns_and_what_is_missing_but_no_size(make_pictures):
    pictures = make_pictures(40)
    ages = [*(str(30 + i) for i in range(20)), *[""] * 20]
    rows = tuple({**row, "age": age, "sex": "F"} for row, age in zip(pictures.rows, ages, strict=True))
    view = PROBES["metadata"].see(replace(pictures, rows=rows))
    assert "age" in view.reason
    assert "width" not in view.reason
    assert np.isfinite(view.features).all()
    assert "sex" not in view.reason
    # One column tells those of whom no age is known, and nothing else.
    told = [column for column in view.features.T if len(set(column[:20])) == len(set(column[20:])) == 1]
    assert len(told) == 1
    assert told[0][0] != told[0][20]


def test_some_of_the_pictures_keep_their_places(make_pictures):
    pictures = make_pictures(12)
    some = pictures.where(np.arange(12) % 3 == 0)
    assert len(some) == 4
    assert some.index.tolist() == [0, 3, 6, 9]
    assert [row["image_id"] for row in some.rows] == ["im000", "im003", "im006", "im009"]
    assert (some.thumbs == pictures.thumbs[::3]).all()
    assert some.lungs is not None
    assert some.at([9, 1, 0]).tolist() == [3, 0]


def test_images_of_a_patient_share_a_number(make_pictures):
    pictures = make_pictures(8, per_patient=2)
    assert pictures.patients.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pictures.numbers(["normal"]).tolist() == [-1, -1, 0, 0, -1, -1, 0, 0]
