"""From attenuation to grey: dose and window go by the healthy body, and the noise by the shot."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.phantom.exposure import Exposure
from cxrtool.phantom.sources import SOURCES, Source

BARE = Source("bare", "png", 1.0, 1.0, scatter=0.0, noise=0.0, blur=0.0)


@pytest.fixture(scope="module")
def chest(make, lay):
    """A scene, its attenuation, and a way to expose it."""
    scene = lay(make(0, age=45, view="PA"), (128, 128))
    attenuation = scene.thorax.tissue + 0.26 * scene.thorax.air

    def expose(source=BARE, reference=attenuation, **changes):
        return Exposure(replace(scene.subject, **changes), source, scene.pose, reference, scene.lung)

    return scene, attenuation, expose


@pytest.mark.parametrize("source", [BARE, *SOURCES.values()], ids=lambda source: source.name)
def test_a_picture_is_grey_from_black_to_white(chest, source):
    scene, attenuation, expose = chest
    image = expose(source).take(attenuation)
    assert image.shape == scene.pose.shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.ptp(image) > 0.35


@pytest.mark.parametrize("source", [BARE, *SOURCES.values()], ids=lambda source: source.name)
def test_air_is_dark_and_the_middle_is_bright(chest, source):
    scene, attenuation, expose = chest
    image = expose(source).take(attenuation)
    clear = scene.lung & (scene.thorax.heart < 0.5)
    middle = (np.abs(scene.middle) < 1.5) & (scene.pose.y > 10) & (scene.pose.y < 16)
    assert np.median(image[attenuation < 0.3]) < np.median(image[clear]) < np.median(image[middle]) - 0.15


def test_the_same_shot_gives_the_same_picture(chest):
    _, attenuation, expose = chest
    exposure = expose(SOURCES["harbour"])
    given = attenuation.copy()
    first = exposure.take(attenuation)
    np.testing.assert_array_equal(first, exposure.take(attenuation))
    np.testing.assert_array_equal(first, expose(SOURCES["harbour"]).take(attenuation))
    np.testing.assert_array_equal(given, attenuation, "what was given was changed")
    assert np.abs(first - expose(SOURCES["harbour"], exposure=(7, 7)).take(attenuation)).mean() > 0.01


def test_more_attenuation_is_never_darker(chest):
    _, attenuation, expose = chest
    exposure = expose()
    pictures = [exposure.take(attenuation + more) for more in (0, 0.5, 1.5, 4)]
    for darker, brighter in itertools.pairwise(pictures):
        assert (brighter >= darker - 1e-5).all()
        assert brighter.mean() > darker.mean() + 0.005


def test_the_window_goes_by_the_reference(chest):
    scene, attenuation, expose = chest
    ill = attenuation + 3.0 * scene.lungs[0]
    exposure = expose()
    apart = ~scene.lungs[0]
    np.testing.assert_allclose(exposure.take(ill)[apart], exposure.take(attenuation)[apart], atol=1e-5)
    # Had the window gone by what is taken, it would move.
    moved = expose(reference=attenuation + 3.0 * scene.lung).take(attenuation)
    assert np.abs(moved - exposure.take(attenuation))[~scene.lung].mean() > 0.005


def test_the_clear_lung_is_as_dark_as_the_source_wants_it(chest):
    scene, attenuation, expose = chest
    clear = scene.lung & (scene.thorax.heart < 0.5)
    greys = [
        np.quantile(expose(replace(BARE, lung=(dark, dark))).take(attenuation)[clear], 0.1) for dark in (0.1, 0.3, 0.5)
    ]
    assert greys[0] + 0.08 < greys[1] < greys[2] - 0.08
    assert greys[0] < 0.2


def test_noise_is_drawn_once_a_shot_and_is_as_strong_as_the_source_says(chest):
    scene, attenuation, expose = chest
    quiet = expose().take(attenuation)
    faint, loud = (expose(replace(BARE, noise=noise)).take(attenuation) - quiet for noise in (0.01, 0.02))
    clear = scene.lung & (scene.thorax.heart < 0.5)
    assert loud[clear].std() == pytest.approx(2 * faint[clear].std(), rel=0.1)
    assert np.corrcoef(loud[clear], faint[clear])[0, 1] > 0.98
    neighbours = np.corrcoef(loud[60, 20:110], loud[60, 21:111])[0, 1]
    assert abs(neighbours) < 0.4, "quanta do not know their neighbours"


def test_smaller_pixels_catch_fewer_quanta(make, lay):
    spreads = []
    for side in (96, 192):
        scene = lay(make(0, age=45, view="PA"), (side, side))
        attenuation = scene.thorax.tissue + 0.26 * scene.thorax.air
        quiet, noisy = (
            Exposure(scene.subject, replace(BARE, noise=noise), scene.pose, attenuation, scene.lung).take(attenuation)
            for noise in (0.0, 0.01)
        )
        spreads.append((noisy - quiet)[scene.lung].std())
    assert spreads[1] == pytest.approx(2 * spreads[0], rel=0.15)


def test_a_shot_has_the_same_look_at_every_size(make, lay):
    for seed in range(6):
        greys = []
        for side in (96, 192):
            scene = lay(make(seed), (side, side))
            attenuation = scene.thorax.tissue + 0.26 * scene.thorax.air
            image = Exposure(scene.subject, BARE, scene.pose, attenuation, scene.lung).take(attenuation)
            greys.append(np.quantile(image, [0.05, 0.25, 0.5, 0.75, 0.95]))
        np.testing.assert_allclose(*greys, atol=0.03)


def test_a_source_has_its_curve_and_its_sharpness(chest):
    _, attenuation, expose = chest
    plain = expose().take(attenuation)
    assert expose(replace(BARE, gamma=0.6)).take(attenuation).mean() > plain.mean() + 0.02
    assert expose(replace(BARE, gamma=1.6)).take(attenuation).mean() < plain.mean() - 0.02

    def edges(source):
        return np.abs(np.diff(expose(source).take(attenuation), axis=1)).mean()

    assert edges(replace(BARE, detail=0.6)) > 1.05 * edges(BARE) > 1.05 * edges(replace(BARE, blur=6.0))


def test_scatter_veils(chest):
    scene, attenuation, expose = chest

    def contrast(source):
        # The window undoes what is even, so that it is the spine behind the light of the lungs that tells.
        image = expose(source).take(attenuation)
        middle = (np.abs(scene.middle) < 1.5) & (scene.pose.y > 6) & (scene.pose.y < 16)
        below = (np.abs(scene.middle) < 6) & (scene.pose.y > scene.body.lung + 3)
        return image[below].mean() - image[middle].mean()

    assert contrast(replace(BARE, scatter=0.8)) > contrast(BARE) + 0.01


def test_a_picture_without_a_lung_can_be_taken(chest):
    scene, attenuation, _ = chest
    none = np.zeros(scene.pose.shape, bool)
    image = Exposure(scene.subject, SOURCES["county"], scene.pose, attenuation, none).take(attenuation)
    assert np.isfinite(image).all()
