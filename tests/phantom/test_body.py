"""The measures of a body, how it stands, and outlines of pixels."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from cxrtool.phantom.body import BLEED, CHILD, Pose, draw_body, fill, inset, tube

OF_THE_PATIENT = {
    "child",
    "old",
    "width",
    "depth",
    "wall",
    "heart",
    "knob",
    "breast",
    "bone",
    "rib_width",
    "stoop",
}
"""Measures that do not change from one day to the next."""


def pose_of(subject, shape=(160, 137)):
    return Pose(subject, shape, draw_body(subject))


def still(pose, turn=0.0, tilt=0.0):
    pose.turn, pose.tilt = turn, tilt
    return pose


def test_the_day_changes_what_a_day_can_change(make):
    changed = set()
    for seed in range(10):
        today = make(seed)
        bodies = asdict(draw_body(today)), asdict(draw_body(replace(today, visit=(seed, 99))))
        changed |= {name for name in bodies[0] if bodies[0][name] != bodies[1][name]}
    assert not changed & OF_THE_PATIENT
    assert {"lung", "dome", "rib_drop", "arms"} <= changed


def test_the_shot_changes_no_measure(make):
    for seed in range(10):
        assert draw_body(make(seed)) == draw_body(replace(make(seed), exposure=(seed, 99)))
        assert draw_body(make(seed)) == draw_body(replace(make(seed), label="covid", extent=(3, 4)))
        assert draw_body(make(seed)) != draw_body(replace(make(seed), body=(seed, 99)))


def test_a_body_becomes_a_grown_ups_and_then_old(make):
    bodies = [draw_body(make(1, age=age, sex="M", view="PA")) for age in range(1, 91)]
    child, old = (np.array([getattr(body, name) for body in bodies]) for name in ("child", "old"))
    assert (np.diff(child) <= 0).all()
    assert (child[0], child[CHILD - 1 :].max()) == (1, 0)
    assert child[: CHILD - 1].min() > 0
    assert (np.diff(old) >= 0).all()
    assert (old[:50].max(), old[-1]) == (0, 1)


def test_women_have_breasts_and_girls_have_none(make):
    women, girls = ([draw_body(make(seed, age=age, sex="F")).breast for seed in range(40)] for age in (40, 4))
    men = [draw_body(make(seed, age=40, sex="M")).breast for seed in range(40)]
    assert min(women) >= 0.8
    assert max(girls) < 0.3
    assert np.mean(men) < 0.3 * np.mean(women)


@pytest.mark.parametrize("age", [2, 12, 30, 85])
def test_measures_are_those_of_a_human(make, age):
    for seed in range(60):
        body = draw_body(make(seed, age=age))
        assert 10 < body.width < 17
        assert 6 < body.depth < 12
        assert 14 < body.lung < 26
        assert 0.3 < body.heart / body.width < 0.75
        assert min(body.dome, body.knob, body.bone, body.rib_pitch, body.rib_width, body.wall) > 0.2
        y = np.linspace(-8, 30, 200, dtype=np.float32)
        assert body.cage(y).min() > 0
        assert (body.outline(y) > body.cage(y) + 1).all(), "the cage is wider than the trunk"


def test_a_pixel_and_its_place_in_the_body_belong_together(make):
    for seed in range(20):
        pose = pose_of(make(seed))
        row, column = np.mgrid[4:156:8, 4:133:8]
        place = np.stack([pose.x[row, column], pose.y[row, column]], axis=-1).astype(float)
        pixel = pose.project(place)
        assert np.hypot(pixel[..., 0] - column, pixel[..., 1] - row).max() < 1, seed
        flat = np.concatenate([place, np.zeros((*row.shape, 1))], axis=-1)
        np.testing.assert_allclose(pose.project(flat), pixel, atol=1e-9)


def test_a_pose_has_a_place_for_every_pixel(make):
    for shape in ((160, 137), (33, 64), (97, 97)):
        pose = pose_of(make(3), shape)
        assert pose.x.shape == pose.y.shape == shape
        assert pose.x.dtype == pose.y.dtype == np.float32
    # To the right of the picture, and downwards.
    assert (np.diff(pose.x, axis=1) > 0).mean() > 0.99
    assert (np.diff(pose.y, axis=0) > 0).mean() > 0.99
    # A step to the side is as many pixels as the scale says, but for the gentle bend.
    assert abs(np.diff(pose.x, axis=1).mean() * pose.scale - 1) < 0.05


@pytest.mark.parametrize(("view", "ahead", "behind"), [("AP", 1, -1), ("PA", -1, 1)])
def test_what_is_far_from_the_detector_looks_larger(make, view, ahead, behind):
    ends = np.array([[-8.0, 6.0], [8.0, 18.0]])
    for seed in range(12):
        pose = still(pose_of(make(seed, view=view), (256, 256)))

        def length(depth, pose=pose):
            return np.linalg.norm(np.diff(pose.project(np.column_stack([ends, [depth, depth]])), axis=0))

        assert ahead * (length(9.0) / length(0.0) - 1) > 0.03
        assert behind * (length(-9.0) / length(0.0) - 1) > 0.03


def test_a_turned_body_shows_its_front_aside(make):
    pose = pose_of(make(2, view="AP"), (256, 256))
    point, ahead = np.array([[0.0, 12.0, 0.0]]), np.array([[0.0, 12.0, 8.0]])
    before = still(pose).project(ahead) - pose.project(point)
    moved = still(pose, turn=0.3).project(ahead) - pose.project(point) - before
    np.testing.assert_allclose(moved / pose.scale, [[pose.sideways(8.0), 0]], atol=0.35)
    assert pose.sideways(8.0) == pytest.approx(2.4)
    lowered = still(pose, tilt=0.3).project(ahead) - pose.project(point) - before
    np.testing.assert_allclose(lowered / pose.scale, [[0, pose.downwards(8.0)]], atol=0.35)


def test_lying_patients_are_taken_less_straight(make):
    lean = {view: np.std([pose_of(make(seed, view=view)).turn for seed in range(80)]) for view in ("AP", "PA")}
    assert lean["AP"] > 1.4 * lean["PA"]


def test_another_shot_only_moves_the_detector_a_little(make):
    for seed in range(10):
        one, other = (pose_of(replace(make(seed), exposure=(seed, shot))) for shot in (3, 4))
        assert (one.scale, one.turn, one.tilt) == (other.scale, other.turn, other.tilt)
        away = np.hypot(one.x - other.x, one.y - other.y)
        assert 0 < away.max() < 1.2


def test_the_bend_of_the_plane_is_the_patients(make):
    poses = [pose_of(make(1, **changes)) for changes in ({}, {"body": (7, 7)})]
    flat = [np.diff(pose.x, n=2, axis=1) for pose in poses]
    assert np.corrcoef(flat[0].ravel(), flat[1].ravel())[0, 1] < 0.8


def test_a_polygon_is_filled_with_a_smooth_edge():
    canvas = np.zeros((40, 50), np.uint8)
    fill(canvas, np.array([[10.0, 8.0], [30.0, 8.0], [30.0, 28.0], [10.0, 28.0]]), 200)
    assert (canvas[10:27, 12:29] == 200).all()
    outside = canvas.copy()
    outside[7:30, 9:32] = 0
    assert not outside.any()
    fill(canvas, np.array([[10.0, 8.0], [30.0, 12.0], [20.0, 28.0]]), 100)
    slanted = canvas[8:28, 10:31]
    assert slanted.max() <= 200
    assert len(np.unique(slanted)) > 4, "its edge is hard"


@pytest.mark.parametrize("wide", [2, 5, 12])
def test_a_filled_polygon_is_no_larger_than_it_was(wide):
    canvas = np.zeros((64, 64), np.uint8)
    corners = np.array([[20.0, 12.0], [20.0 + wide, 12.0], [20.0 + wide, 50.0], [20.0, 50.0]])
    for polygon in (corners, corners[::-1]):
        canvas[:] = 0
        fill(canvas, inset(polygon), 200)
        assert canvas[30].sum() / 200 == pytest.approx(wide, abs=0.6)


@pytest.mark.parametrize("wide", [2, 5, 12])
def test_a_filled_tube_is_as_wide_as_it_was_asked_for(wide):
    canvas = np.zeros((64, 64), np.uint8)
    fill(canvas, tube(np.array([[30.0, 8.0], [30.0, 30.0], [30.0, 55.0]]), wide / 2), 200)
    assert canvas[30].sum() / 200 == pytest.approx(wide, abs=0.6)


def test_a_tube_is_as_wide_as_it_was_asked_for():
    t = np.linspace(0, 1.5, 60)
    lines = np.stack([np.stack([40 * np.sin(t), 40 * np.cos(t)], 1), np.stack([9 * t, 3 + 4 * t], 1)])
    radius = np.stack([np.linspace(1, 4, 60), np.full(60, 2.5)])
    outlines = tube(lines, radius)
    assert outlines.shape == (2, 120, 2)
    one, other = outlines[:, :60], outlines[:, :59:-1]
    np.testing.assert_allclose(np.linalg.norm(one - lines, axis=-1), radius - BLEED, atol=1e-9)
    np.testing.assert_allclose((one + other) / 2, lines, atol=1e-9)
    way = np.gradient(lines, axis=1)
    slope = ((one - other) * way).sum(axis=-1) / np.linalg.norm(way, axis=-1)
    assert np.abs(slope).max() < 1e-6, "it is not cut at a right angle"


def test_a_tube_takes_one_radius_and_survives_a_point_that_stands_twice():
    line = np.array([[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]])
    outline = tube(line, 2.0)
    assert np.isfinite(outline).all()
    assert set(np.abs(outline[[2, 3], 1])) == {2.0 - BLEED}
