"""Tables, noise, edges and blur, each against what it is defined by."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cxrtool.phantom.fields import Profile, ball, blur, cloud, roughness, step

POINTS = [(-3.0, 1.0), (0.0, 2.5), (1.2, 2.4), (6.0, 4.0), (11.0, 4.0), (12.5, -1.0)]


def grid(height, width, reach=6.0):
    x, y = np.meshgrid(np.linspace(-reach, reach, width), np.linspace(-reach, reach, height))
    return x.astype(np.float32), y.astype(np.float32)


def test_a_profile_goes_through_its_points():
    places, values = np.array(POINTS).T
    profile = Profile(POINTS)
    # An entry lies up to 0.02 cm away, and the steepest part falls by less than 6 a cm.
    np.testing.assert_allclose(profile(places), values, atol=0.12)
    assert profile(places).dtype == np.float32
    assert profile(np.zeros((3, 5, 2), np.float32)).shape == (3, 5, 2)


def test_a_profile_stays_at_its_ends():
    profile = Profile(POINTS)
    np.testing.assert_allclose(profile(np.array([-3.1, -40.0, -1e6])), 1.0, atol=1e-6)
    np.testing.assert_allclose(profile(np.array([12.55, 30.0, 1e6])), -1.0, atol=0.12)


def test_a_profile_does_not_swing_between_its_points():
    profile = Profile(POINTS)
    assert (np.diff(profile(np.linspace(-3, 0, 50))) >= 0).all()
    np.testing.assert_allclose(profile(np.linspace(6, 11, 50)), 4.0, atol=1e-6)
    assert np.abs(np.diff(profile(np.linspace(-4, 14, 4000)))).max() < 0.13, "it jumps"


@pytest.mark.parametrize("shape", [(24, 24), (25, 17), (7, 64), (1, 9), (33, 101)])
@pytest.mark.parametrize("cells", [0.5, 3, 4.7, 150])
def test_a_cloud_has_the_shape_that_was_asked_for(shape, cells):
    noise = cloud(np.random.default_rng(1), shape, cells)
    assert noise.shape == shape
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()


def test_a_cloud_comes_from_its_generator_alone():
    first, again, other = (cloud(np.random.default_rng(seed), (30, 41), 5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.3


@pytest.mark.parametrize(("shape", "cells"), [((24, 24), 4), ((25, 17), 4), ((24, 24), 30)])
def test_a_cloud_is_the_same_everywhere(shape, cells):
    generator = np.random.default_rng(0)
    clouds = np.stack([cloud(generator, shape, cells) for _ in range(1200)])
    spread = clouds.std(axis=0)
    assert abs(clouds.mean()) < 0.03
    assert 0.75 < spread.mean() < 1.1
    # No pixel is a place of its own: neither those on a cell nor those between, neither the edge nor the middle.
    assert spread.min() > 0.87 * spread.mean()
    assert spread.max() < 1.13 * spread.mean()


def test_more_cells_are_finer():
    def change(cells):
        noise = cloud(np.random.default_rng(2), (128, 128), cells)
        return np.abs(np.diff(noise, axis=1)).mean() / noise.std()

    assert change(4) < 0.6 * change(8) < 0.36 * change(16)


def test_roughness_adds_finer_noise():
    one, many = (roughness(np.random.default_rng(5), (96, 80), 4, octaves) for octaves in (1, 4))
    np.testing.assert_array_equal(one, cloud(np.random.default_rng(5), (96, 80), 4))
    assert many.shape == (96, 80)
    assert many.dtype == np.float32
    assert np.abs(np.diff(many, axis=0)).mean() > 2 * np.abs(np.diff(one, axis=0)).mean()
    faint = roughness(np.random.default_rng(5), (96, 80), 4, 4, fall=1e-4)
    # Grown in steps it is not quite what it is grown at once.
    np.testing.assert_allclose(faint, one, atol=0.15)
    assert np.abs(faint - one).mean() < 0.05


def test_a_step_goes_from_nothing_to_all():
    distance = np.linspace(-3, 3, 601).astype(np.float32)
    risen = step(distance, 2.0)
    assert (risen[distance <= -2].max(), risen[300], risen[distance >= 2].min()) == (0.0, 0.5, 1.0)
    assert (np.diff(risen) >= 0).all()
    np.testing.assert_allclose(risen + risen[::-1], 1, atol=1e-6)
    assert np.diff(risen)[[100, 101, 498, 499]].max() < 2e-4, "its ends have a kink"


@pytest.mark.parametrize("tilt", [0.0, 0.6, -1.1])
def test_a_ball_is_half_a_ray_through_an_ellipsoid(tilt):
    x, y = grid(41, 53)
    centre, radii = (1.0, -0.7), (3.5, 1.6)
    depth = np.linspace(-1, 1, 2001)
    along = (x - centre[0]) * np.cos(tilt) + (y - centre[1]) * np.sin(tilt)
    aside = (y - centre[1]) * np.cos(tilt) - (x - centre[0]) * np.sin(tilt)
    inside = (along / radii[0]) ** 2 + (aside / radii[1]) ** 2
    length = (inside[..., None] + depth**2 <= 1).mean(axis=-1) * 2
    kept = x.copy(), y.copy()
    np.testing.assert_allclose(ball(x, y, centre, radii, tilt), length / 2, atol=2e-3)
    np.testing.assert_array_equal((x, y), kept, "what was given was changed")


def test_a_ball_tilts_clockwise():
    x, y = grid(41, 41)
    tilted = ball(x, y, (0, 0), (4.0, 0.8), np.pi / 4) > 0
    # Rows go down: a level rod turned clockwise has its right end below.
    assert tilted[26, 26]
    assert tilted[14, 14]
    assert not tilted[26, 14]


@pytest.mark.parametrize("sigma", [0.4, 2.0, 6.0, 7.3, 9.0, 14.0])
@pytest.mark.parametrize("shape", [(97, 131), (160, 137)])
def test_a_blur_is_a_gaussian_however_it_is_computed(sigma, shape):
    field = np.random.default_rng(1).random(shape, dtype=np.float32)
    field += np.linspace(0, 3, shape[1], dtype=np.float32) + 2 * (np.arange(shape[1]) > shape[1] // 2)
    expected = gaussian_filter(field, sigma, mode="nearest", truncate=5)
    soft = blur(field, sigma)
    assert soft.dtype == np.float32
    assert soft.shape == shape
    assert np.abs(soft - expected).max() < 0.05 * np.ptp(field)
    inner = slice(3, -3), slice(3, -3)
    assert np.abs(soft - expected)[inner].mean() < 0.005 * np.ptp(field)


@pytest.mark.parametrize("sigma", [0, -1.0])
def test_of_no_width_a_blur_changes_nothing(sigma):
    field = np.random.default_rng(1).random((9, 9), dtype=np.float32)
    np.testing.assert_array_equal(blur(field, sigma), field)


@pytest.mark.parametrize("sigma", [1, 8, 40, 400])
def test_a_blur_keeps_an_even_field(sigma):
    np.testing.assert_allclose(blur(np.full((31, 26), 2.5, np.float32), sigma), 2.5, atol=1e-5)
