"""Ribs and other bones: where they lie and how much of them there is."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.phantom.body import draw_body
from cxrtool.phantom.bones import draw_other_bones, draw_ribs


def ribs_of(scene, body=None):
    return draw_ribs(scene.subject, body or scene.body, scene.pose, scene.thorax.across)


def others_of(scene, body=None):
    return draw_other_bones(scene.subject, body or scene.body, scene.pose)


@pytest.fixture(scope="module")
def scenes(make, lay):
    return [lay(make(seed), (128, 128)) for seed in range(12)]


@pytest.mark.parametrize("bones_of", [ribs_of, others_of])
def test_bones_are_lengths_at_every_pixel(make, lay, scenes, bones_of):
    for scene in [*scenes, lay(make(3), (65, 83))]:
        bones = bones_of(scene)
        assert bones.shape == scene.pose.shape
        assert bones.dtype == np.float32
        assert np.isfinite(bones).all()
        assert bones.min() >= 0
        assert 0.3 < bones.max() < 4


@pytest.mark.parametrize("bones_of", [ribs_of, others_of])
def test_denser_bones_attenuate_more(scenes, bones_of):
    scene = scenes[0]
    double = bones_of(scene, replace(scene.body, bone=2 * scene.body.bone))
    np.testing.assert_allclose(double, 2 * bones_of(scene), rtol=1e-4)


def test_ribs_go_around_the_cage(scenes):
    for scene in scenes:
        ribs, across, y = ribs_of(scene), scene.thorax.across, scene.pose.y
        assert ribs[across > 1.2].sum() < 0.03 * ribs.sum()
        assert ribs[across < 1.5 / scene.body.width].sum() < 0.03 * ribs.sum(), "they cross the spine"
        sides = [ribs[scene.middle * side > 0].sum() for side in (-1, 1)]
        assert 0.6 < sides[0] / sides[1] < 1.7
        # Seen along the side of the chest a ray runs through more of them.
        inner = (y > 3) & (y < 16) & (across > 0.4) & (across < 0.7) & (ribs > 0.05)
        outer = (y > 3) & (y < 16) & (across > 0.88) & (across < 1.0) & (ribs > 0.05)
        if outer.sum() > 20:
            assert ribs[outer].mean() > 1.1 * ribs[inner].mean()


def test_ribs_leave_gaps(scenes):
    for scene in scenes:
        ribs = ribs_of(scene)
        within = ribs[scene.lung & (scene.pose.y > 3)]
        assert (within > 0.2 * within.max()).mean() > 0.25
        assert (within < 0.02 * within.max()).mean() > 0.03


def test_ribs_are_the_patients(make, lay):
    scene = lay(make(5), (128, 128))
    again = draw_ribs(
        replace(scene.subject, visit=(0, 0), exposure=(0, 0), label="viral", extent=(2, 2)),
        scene.body,
        scene.pose,
        scene.thorax.across,
    )
    np.testing.assert_array_equal(again, ribs_of(scene))
    other = draw_ribs(replace(scene.subject, body=(8, 8)), scene.body, scene.pose, scene.thorax.across)
    assert (other != ribs_of(scene)).any()


def test_wide_ribs_are_wide(scenes):
    scene = scenes[1]
    slim, broad = (ribs_of(scene, replace(scene.body, rib_width=width)) for width in (0.5, 0.8))
    assert (broad > 0.1).sum() > 1.2 * (slim > 0.1).sum()


def test_the_spine_follows_the_bend_of_the_body(make, lay):
    scene = lay(make(6, age=40), (160, 160))
    y = scene.pose.y

    def place(stoop, low, high):
        body = replace(scene.body, stoop=stoop)
        bones = others_of(scene, body)
        near = (np.abs(scene.pose.x - scene.pose.sideways(-6.0)) < 4.5) & (y > low) & (y < high)
        return np.average(scene.pose.x[near], weights=bones[near])

    # At 10 cm the sine is at its height, at 19 it is nearly back.
    aside = place(1.5, 8, 12) - place(0.0, 8, 12)
    assert 0.5 < aside < 1.8
    assert abs(place(1.5, 18.5, 20.5) - place(0.0, 18.5, 20.5)) < 0.5 * aside


def test_the_spine_is_the_densest_and_the_lungs_are_mostly_free(scenes):
    for scene in scenes:
        bones, y = others_of(scene), scene.pose.y
        chest = (y > 6) & (y < 18)
        spine = chest & (np.abs(scene.pose.x - scene.pose.sideways(-6.0) - scene.body.bend(y)) < 1.2)
        beside = chest & (np.abs(scene.middle) > 4) & (scene.thorax.across < 0.7)
        assert bones[spine].mean() > 4 * bones[beside].mean()


def test_both_shoulders_are_there(scenes):
    for scene in scenes:
        bones = others_of(scene)
        high = scene.pose.y < 4
        inside = [bones[high & (scene.middle * side > 3) & (scene.middle * side < 10)].sum() for side in (-1, 1)]
        assert min(inside) > 0
        assert 0.4 < inside[0] / inside[1] < 2.5


def test_there_is_as_much_bone_at_every_size(make, lay):
    for seed in (0, 1, 3):
        scenes = [lay(make(seed), (side, side)) for side in (160, 320)]
        for bones_of in (ribs_of, others_of):
            small, large = (bones_of(scene).sum() / scene.pose.scale**2 for scene in scenes)
            assert 0.85 < small / large < 1.18


def test_bones_of_children_are_slender(make):
    child, adult = (np.mean([draw_body(make(seed, age=age)).rib_width for seed in range(20)]) for age in (3, 40))
    assert child < 0.85 * adult
