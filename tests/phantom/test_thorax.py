"""The organs: where they lie, and how large they are."""

import cv2
import numpy as np
import pytest

SEEDS = range(40)


@pytest.fixture(scope="module")
def scenes(make, lay):
    """Forty bodies: adults and children, women and men, standing and lying."""
    laid = [lay(make(seed)) for seed in SEEDS]
    assert {scene.subject.view for scene in laid} == {"PA", "AP"}
    assert sum(scene.body.child > 0 for scene in laid) > 5
    return laid


def test_every_field_is_a_length_at_every_pixel(scenes, make, lay):
    for scene in [*scenes[:5], lay(make(1), (65, 83)), lay(make(2), (128, 77))]:
        thorax = scene.thorax
        for field in (thorax.tissue, thorax.air, *thorax.lungs, thorax.heart, thorax.across):
            assert field.shape == scene.pose.shape
            assert field.dtype == np.float32
            assert np.isfinite(field).all()
            assert field.min() >= 0
        assert max(field.max() for field in (*thorax.lungs, thorax.heart)) <= 1
        assert thorax.air.max() < 2.2 * scene.body.depth
        assert thorax.tissue.max() < 45


def test_the_right_lung_lies_on_the_left_of_the_picture(scenes):
    for scene in scenes:
        right, left = scene.lungs
        assert not (right & left).any()
        assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()
        assert (scene.middle[right] < 0).mean() > 0.995
        assert (scene.middle[left] > 0).mean() > 0.995


def test_a_lung_is_one_piece(scenes):
    for scene in scenes:
        for lung in scene.lungs:
            _, _, stats, _ = cv2.connectedComponentsWithStats(lung.astype(np.uint8))
            assert stats[1:, cv2.CC_STAT_AREA].max() > 0.99 * lung.sum()


def test_lungs_have_the_size_of_lungs(scenes):
    areas = []
    for scene in scenes:
        right, left = (lung.sum() / scene.pose.scale**2 for lung in scene.lungs)
        assert 90 < right < 320
        assert 90 < left < 320
        assert 0.7 < right / left < 1.4
        areas.append(right + left)
    assert np.std(areas) > 20, "all are alike"


def test_a_lung_ends_at_its_dome_and_begins_at_its_apex(scenes):
    for scene in scenes:
        body, y = scene.body, scene.pose.y
        for index, lung in enumerate(scene.lungs):
            under_the_summit = lung & (np.abs(np.abs(scene.middle) - 5.8) < 0.6)
            lowest = y[under_the_summit].max()
            if lowest < y[-1].min() - 0.5:
                assert abs(lowest - body.lung - (body.rise if index else 0)) < 1.1
            assert -1.6 < y[lung].min() < 2.2


def test_a_lung_lies_within_the_cage(scenes):
    for scene in scenes:
        across, cage = scene.thorax.across, scene.body.cage(scene.pose.y)
        np.testing.assert_allclose(across * cage, np.abs(scene.middle), atol=0.05)
        assert across[scene.lung].max() < 1.05
        assert scene.thorax.air[across > 1].max() == 0
        assert scene.thorax.air[scene.lung].mean() > 7
        assert (scene.thorax.air[scene.lung] > 0.5).mean() > 0.85


def test_lungs_reach_behind_the_heart_where_there_is_less_air(scenes):
    for scene in scenes:
        left, heart = scene.lungs[1], scene.thorax.heart > 0.5
        assert (left & heart).sum() > 0.08 * left.sum()
        level = (scene.pose.y > 8) & (scene.pose.y < scene.body.lung - 2)
        behind, beside = left & heart & level, left & ~heart & level
        assert scene.thorax.air[behind].mean() < 0.75 * scene.thorax.air[beside].mean()


def test_the_heart_lies_to_the_left(scenes):
    for scene in scenes:
        heart = (scene.thorax.heart > 0.5) & (scene.pose.y > 12)
        assert (scene.middle[heart] > 0).mean() > 0.52
        ratio = np.ptp(scene.middle[heart]) / (2 * scene.body.width)
        assert 0.36 < ratio < 0.68
        _, _, stats, _ = cv2.connectedComponentsWithStats((scene.thorax.heart > 0.5).astype(np.uint8))
        assert stats[1:, cv2.CC_STAT_AREA].max() > 0.99 * (scene.thorax.heart > 0.5).sum()


def test_hearts_of_the_lying_are_wider(make, lay):
    def ratio(scene):
        return np.ptp(scene.middle[(scene.thorax.heart > 0.5) & (scene.pose.y > 12)]) / scene.body.width

    views = ([ratio(lay(make(seed, view=view, age=40))) for seed in range(16)] for view in ("AP", "PA"))
    lying, standing = map(np.mean, views)
    assert lying > 1.02 * standing


def test_the_hila_lie_in_the_lungs(scenes):
    for scene in scenes:
        for lung, (x, y) in zip(scene.lungs, scene.thorax.hila, strict=True):
            column, row = scene.pose.project(np.array([x, y])).round().astype(int)
            assert lung[row - 1 : row + 2, column - 1 : column + 2].any()
        right, left = scene.thorax.hila
        assert right[0] < left[0]
        assert left[1] < right[1], "the left hilum lies higher"


def test_the_body_is_thick_below_the_lungs_and_air_beside_it(scenes):
    for scene in scenes:
        x, y = scene.pose.x, scene.pose.y
        below = (np.abs(scene.middle) < 8) & (y > scene.body.lung + 3.5)
        clear = scene.lung & (scene.thorax.heart < 0.5)
        if below.sum() > 20:
            assert np.median(scene.thorax.tissue[below]) > 1.5 * np.median(scene.thorax.tissue[clear])
        beside = (np.abs(x) > scene.body.outline(y) + 1) & (y < -6) & (np.abs(y) < 8)
        if beside.sum() > 10 and not scene.body.child:
            assert np.median(scene.thorax.tissue[beside]) == 0


def test_illness_and_shot_do_not_change_the_organs(make, lay):
    healthy, ill = lay(make(4)), lay(make(4, "covid", (4, 4)))
    np.testing.assert_array_equal(healthy.thorax.tissue, ill.thorax.tissue)
    np.testing.assert_array_equal(healthy.thorax.air, ill.thorax.air)
    moved = lay(make(4, exposure=(9, 9)))
    assert abs(moved.thorax.air.sum() / healthy.thorax.air.sum() - 1) < 0.01
