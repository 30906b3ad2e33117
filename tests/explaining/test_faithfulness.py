import numpy as np
import pytest

from cxrtool.explaining.faithfulness import measure


def rng():
    return np.random.default_rng(5)


def brightness_of(mask):
    """A model that sees the mean brightness of a part of an image."""
    return lambda inputs: np.array([pixels[mask].mean() / np.iinfo(pixels.dtype).max for pixels in inputs])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_map_of_what_the_model_sees_is_the_better_one(kind, channels):
    white = np.iinfo(kind).max
    pixels = np.zeros((32, 32, *channels), kind)
    pixels[4:12, 6:14] = white
    mask = pixels.reshape(32, 32, -1)[..., 0] > 0
    right = measure(pixels, mask.astype(np.float32), 8, 16, brightness_of(mask), rng())
    wrong = measure(pixels, 1 - mask.astype(np.float32), 8, 16, brightness_of(mask), rng())
    # The square has a sixteenth of the pixels: it is gone after the first step, and only the mean of the image is left.
    grey = np.rint(white / 16) / white
    assert right.deletion == pytest.approx((0.5 * (1 + grey) + 15 * grey) / 16)
    assert wrong.deletion == pytest.approx((15 + 0.5 * (1 + grey)) / 16)
    assert right.deletion < right.random_deletion < wrong.deletion
    assert right.insertion > right.random_insertion > wrong.insertion
    assert right.insertion > 31 / 32
    # The random map does not depend on the map.
    assert (right.random_deletion, right.random_insertion) == (wrong.random_deletion, wrong.random_insertion)


def test_equal_pixels_go_in_random_order_and_the_same_seed_gives_the_same():
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24), np.uint8)
    half = np.s_[:, :12]
    areas = [measure(pixels, np.zeros((24, 24), np.float32), 3, 10, brightness_of(half), rng()) for _ in range(2)]
    assert areas[0] == areas[1]
    # In the order of rows or columns one half would go first; in random order both go alike, to the mean of the image.
    first = pixels[half].mean() / 255
    assert areas[0].deletion == pytest.approx((first + np.rint(pixels.mean()) / 255) / 2, abs=0.02)


def test_a_model_that_sees_nothing_is_faithful_to_no_map():
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24), np.uint8)
    found = measure(pixels, pixels.astype(np.float32), 3, 7, lambda inputs: np.full(len(inputs), 0.25), rng())
    areas = (found.deletion, found.insertion, found.random_deletion, found.random_insertion)
    assert areas == pytest.approx((0.25,) * 4)
