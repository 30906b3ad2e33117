import numpy as np
import pytest
from skimage.transform import rotate

from cxrtool.imaging import plausibility


def chest(seed, dtype=np.uint8, side=96):
    """Two dark fields in a bright body, each time a little different."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] + generator.normal(0, 0.04, (2, 1, 1))
    picture = 0.8 - 0.3 * np.maximum(np.abs(x), np.abs(y)) ** 4
    for centre in (-0.42, 0.42):
        picture -= 0.55 * np.exp(-(((x - centre) / 0.28) ** 4) - ((y + 0.05) / 0.55) ** 4)
    picture += generator.normal(0, 0.03, picture.shape)
    white = np.iinfo(dtype).max
    return (np.clip(picture, 0, 1) * white).astype(dtype)


@pytest.fixture(scope="module")
def usual():
    return plausibility.fit(np.stack([plausibility.thumbnail(chest(seed)) for seed in range(40)]))


def test_a_thumbnail_is_standardised():
    pattern = plausibility.thumbnail(chest(0))
    assert pattern.shape == (plausibility.SIDE**2,)
    assert pattern.mean() == pytest.approx(0, abs=1e-9)
    assert pattern.std() == pytest.approx(1)


def test_depth_does_not_matter():
    flat = chest(0)
    np.testing.assert_allclose(
        plausibility.thumbnail(flat), plausibility.thumbnail(flat.astype(np.uint16) * 257), atol=1e-9
    )
    np.testing.assert_allclose(plausibility.thumbnail(flat), plausibility.thumbnail(flat / 255), atol=1e-9)


def test_brightness_and_contrast_do_not_matter():
    picture = chest(0) / 255
    np.testing.assert_allclose(plausibility.thumbnail(picture), plausibility.thumbnail(picture * 0.4 + 0.3), atol=1e-9)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_picture_is_told_even_where_nothing_is_usual(usual, value):
    blank = np.full((64, 64), value, np.uint8)
    blank[0, 0] = 255 - value
    assert not plausibility.thumbnail(blank).any()
    for known in (usual, None):
        assert plausibility.warn(blank, known) == "out of range: the image is blank"


def test_other_chests_are_usual(usual):
    warned = [seed for seed in range(100, 140) if plausibility.warn(chest(seed), usual)]
    assert len(warned) <= 1
    assert plausibility.warn(chest(7, np.uint16), usual) == ""


def test_what_is_no_frontal_chest_is_told(usual):
    generator = np.random.default_rng(0)
    picture = chest(0)
    ramp = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (96, 1))
    hand = np.zeros((96, 96), np.uint8)
    hand[50:, 30:66] = 200
    for finger in range(4):
        hand[10:55, 28 + 10 * finger : 34 + 10 * finger] = 220
    strangers = {
        "turned": rotate(picture, 90, preserve_range=True).astype(np.uint8),
        "inverted": 255 - picture,
        "noise": generator.integers(0, 256, (96, 96), np.uint8),
        "ramp": ramp,
        "hand": hand,
    }
    for name, stranger in strangers.items():
        assert plausibility.warn(stranger, usual).startswith("out of range: unlike the training images"), name
        assert plausibility.warn(stranger, None) == ""


def test_what_is_learnt_is_plain_and_small(usual):
    import json

    assert json.loads(json.dumps(usual)) == usual
    assert len(usual["pattern"]) == plausibility.SIDE**2
    assert -1 < usual["least_correlation"] < 1


def test_training_on_blank_pictures_is_no_bug():
    known = plausibility.fit(np.zeros((3, plausibility.SIDE**2)))
    assert np.isfinite(known["least_correlation"])
    assert "blank" in plausibility.warn(np.zeros((8, 8), np.uint8), known)
