import json

import numpy as np
import pytest

from cxrtool.imaging import properties
from cxrtool.imaging.properties import kinds_of

SIDE = 64


def chest(seed, dtype=np.uint8):
    """Two dark fields in a bright body, with a dark corner at the lower right and a dark upper edge."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] + generator.normal(0, 0.04, (2, 1, 1))
    picture = 0.75 - 0.2 * np.maximum(np.abs(x), np.abs(y)) ** 4 + 0.15 * y
    for centre in (-0.42, 0.42):
        picture -= 0.5 * np.exp(-(((x - centre) / 0.28) ** 4) - ((y + 0.2) / 0.5) ** 4)
    picture += generator.normal(0, 0.02, picture.shape)
    return (np.clip(picture, 0, 1) * np.iinfo(dtype).max).astype(dtype)


def row(height=400, width=500, warning="", **more):
    return {"height": str(height), "width": str(width), "warning": warning, **more}


@pytest.fixture(scope="module")
def usual():
    sizes = np.random.default_rng(0).integers(350, 450, 80)
    return properties.fit((chest(seed), row(int(size), int(size * 1.2))) for seed, size in enumerate(sizes))


def unlike(pixels, given, usual):
    cell = properties.describe(pixels, given, usual, properties.of_models([usual]))["unlike"]
    return kinds_of(cell), cell


def test_images_of_the_same_kind_are_mostly_inside(usual):
    flagged = [seed for seed in range(200, 300) if unlike(chest(seed), row(), usual)[0]]
    assert len(flagged) <= 3


@pytest.mark.parametrize(
    ("change", "given", "kind"),
    [
        (lambda p: 255 - p, row(), "perhaps inverted (black and white exchanged)"),
        (lambda p: p[::-1, ::-1], row(), "perhaps upside down"),
        (lambda p: np.rot90(p, -1), row(), "perhaps rotated to the right by 90 degrees"),
        (lambda p: np.rot90(p), row(), "perhaps rotated to the left by 90 degrees"),
        (lambda p: p // 6, row(), "dark"),
        (lambda p: p // 4 + 190, row(), "bright"),
        (lambda p: p // 4 + 100, row(), "low contrast"),
        (lambda p: p, row(64, 80), "small"),
        (lambda p: p, row(2000, 2400), "large"),
        (lambda p: p, row(400, 200), "narrow"),
        (lambda p: p, row(400, 900), "wide"),
        (lambda p: p.astype(np.uint16) * 257 + 3, row(), "16 bits"),
        (lambda p: np.full_like(p, 130), row(), "blank or without structure"),
        (lambda p: np.indices(p.shape).sum(0).astype(np.uint8), row(), "another kind of image, or another view"),
        (lambda p: p, row(warning="colour image, converted to grey"), "colour image, converted to grey"),
        (lambda p: p, row(warning="no lungs found"), "no lungs found"),
    ],
)
def test_what_is_unlike_is_named(usual, change, given, kind):
    kinds, cell = unlike(np.ascontiguousarray(change(chest(500))), given, usual)
    assert kind in kinds, cell


def test_the_text_has_the_value_and_the_training_range(usual):
    low, high = (usual["training"]["quantiles"]["shorter_side"][k] for k in (properties.LOW, properties.HIGH))
    _, cell = unlike(chest(500), row(64, 80), usual)
    assert cell == f"small: shorter side (pixels) 64, training {low:.0f} to {high:.0f}"


def test_the_range_is_widened_by_a_quarter_on_a_logarithmic_scale_of_sizes():
    quantiles = [90, 100, 110, 150, 200, 250, 300, 400, 500]
    assert properties.limits("shorter_side", quantiles) == pytest.approx((100 / 2**0.5, 400 * 2**0.5))
    same = [512.0] * 9
    assert properties.limits("shorter_side", same) == pytest.approx((512 / 1.1, 512 * 1.1))
    grey = [0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7]
    assert properties.limits("grey_mean", grey) == pytest.approx((0.1, 0.7))


def test_what_was_widened_to_16_bits_is_of_8_bits():
    assert properties.bits_of(chest(0).astype(np.uint16) * 257) == 8
    assert properties.bits_of(chest(0, np.uint16)) == 16


def test_depth_does_not_change_the_grey_values():
    eight, sixteen = chest(0), chest(0).astype(np.uint16) * 257
    assert properties.measure(eight, 10, 20) == pytest.approx(properties.measure(sixteen, 10, 20))
    assert properties.measure(eight, 10, 20)["aspect_ratio"] == 2
    assert "shorter_side" not in properties.measure(eight, None, None)
    assert properties.measure(eight, None, None)["grey_mean"] == pytest.approx(eight.mean() / 255)


def test_a_summary_is_plain_and_its_images_are_read_one_by_one():
    alive = []

    def images():
        for seed in range(5):
            alive.append(seed)
            yield chest(seed), row(mask_area="0.3", warning="no lungs found; near-duplicate of im_7")

    found = properties.fit(images())
    assert json.loads(json.dumps(found)) == found
    training = found["training"]
    assert training["images"] == len(alive) == 5
    assert training["quantiles"]["lung_area"] == [0.3] * len(properties.QUANTILES)
    assert training["bits"] == {"8": 1.0}
    assert training["remarks"] == {"no lungs found": 1.0}


def test_a_property_that_some_images_lack_is_not_compared():
    found = properties.fit((chest(seed), row() if seed else {}) for seed in range(4))
    assert "shorter_side" not in found["training"]["quantiles"]
    assert "grey_mean" in found["training"]["quantiles"]


def test_several_models_have_the_widest_range(usual):
    other = properties.fit((chest(seed), row(1000, 1000, "no lungs found")) for seed in range(20))
    both = properties.of_models([usual, other])
    sides = [one["training"]["quantiles"]["shorter_side"] for one in (usual, other)]
    merged = both["quantiles"]["shorter_side"]
    assert merged[properties.LOW] == min(side[properties.LOW] for side in sides)
    assert merged[properties.HIGH] == max(side[properties.HIGH] for side in sides)
    assert both["remarks"] == {"no lungs found": 1.0}


def test_of_an_earlier_model_only_the_pattern_is_known(usual):
    earlier = {name: value for name, value in usual.items() if name != "training"}
    assert properties.of_models([usual, earlier]) is None
    assert properties.of_models([None]) is None
    assert unlike(255 - chest(500), row(64, 80), earlier)[0] == ["another kind of image, or another view"]
    found = properties.describe(chest(500), row(64, 80), None, None)
    assert (found["unlike"], found["correlation"], found["width"]) == ("", "", "80")


def test_values_are_read_back_from_the_table():
    cells = properties.describe(chest(500), row(64, 80), None, None)
    assert properties.value_of(cells, "shorter_side") == 64
    assert properties.value_of(cells, "aspect_ratio") == 1.25
    assert properties.value_of(cells, "lung_area") is None
    assert tuple(cells) == properties.COLUMNS
