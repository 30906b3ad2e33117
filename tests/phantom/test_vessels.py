"""The vessels of the lungs: from the hila outwards, thinner and thinner."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.phantom.vessels import LEVELS, draw_vessels


def vessels_of(scene, **changes):
    return draw_vessels(replace(scene.subject, **changes), scene.body, scene.pose, scene.thorax.hila)


def distances(scene):
    return [np.hypot(scene.pose.x - x, scene.pose.y - y) for x, y in scene.thorax.hila]


@pytest.fixture(scope="module")
def scenes(make, lay):
    return [lay(make(seed), (128, 128)) for seed in range(10)]


def test_vessels_are_lengths_at_every_pixel(make, lay, scenes):
    for scene in [*scenes, lay(make(3), (65, 83))]:
        vessels = vessels_of(scene)
        assert vessels.shape == scene.pose.shape
        assert vessels.dtype == np.float32
        assert vessels.min() >= 0
        assert 0.2 < vessels.max() < 1.5


def test_vessels_thin_out_from_the_hila(scenes):
    for scene in scenes:
        vessels = vessels_of(scene)
        near = np.minimum(*distances(scene))
        means = [vessels[scene.lung & (near >= a) & (near < b)].mean() for a, b in ((0, 3), (3, 6), (6, 9), (9, 12))]
        assert means[0] > means[1] > means[2] > means[3] > 0


def test_each_tree_stays_on_its_side(scenes):
    for scene in scenes:
        vessels, middle = vessels_of(scene), scene.middle
        sides = [vessels[middle * side > 2].sum() for side in (-1, 1)]
        assert vessels[np.abs(middle) < 1].sum() < 0.08 * vessels.sum()
        assert 0.6 < sides[0] / sides[1] < 1.7


def test_vessels_fill_the_lungs(make, lay):
    scene = lay(make(1), (256, 256))
    vessels = vessels_of(scene)
    for lung, near in zip(scene.lungs, distances(scene), strict=True):
        assert (vessels[lung & (near < 8)] > 0.02).mean() > 0.3
        assert vessels[lung & (scene.pose.y < 5)].max() > 0.05
        assert vessels[lung & (scene.pose.y > 15)].max() > 0.05
    assert LEVELS >= 6


def test_vessels_are_the_patients(scenes):
    scene = scenes[0]
    same = vessels_of(scene, visit=(0, 0), exposure=(0, 0), label="covid", extent=(4, 4))
    np.testing.assert_array_equal(same, vessels_of(scene))
    assert np.corrcoef(vessels_of(scene, body=(8, 8)).ravel(), same.ravel())[0, 1] < 0.95


def test_vessels_of_the_lying_are_fuller(make, lay):
    scene = lay(make(2, view="PA"), (256, 256))
    standing = vessels_of(scene).sum()
    scene.pose.lying = True
    lying = vessels_of(scene).sum()
    scene.pose.lying = False
    assert 1.02 < lying / standing < 1.3


def test_there_is_as_much_blood_at_every_size(make, lay):
    for seed in range(4):
        small, large = (
            vessels_of(scene).sum() / scene.pose.scale**2
            for scene in (lay(make(seed), (side, side)) for side in (128, 384))
        )
        assert 0.8 < small / large < 1.25
