import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cxrtool.explaining.maps import figures
from cxrtool.explaining.scoring import Ranking

SHAPE = (30, 44)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def shape_of(rng, share=0.2):
    return rng.random(SHAPE) < share


@pytest.mark.parametrize("levels", [3, 20, 10**5])
def test_the_scores_are_those_of_others(rng, levels):
    values = np.floor(rng.random(SHAPE) * levels).astype(np.float32)
    reference = shape_of(rng)
    found = Ranking(values).score(reference)
    assert found.average_precision == pytest.approx(average_precision_score(reference.ravel(), values.ravel()))
    energy = figures(values, *SHAPE, reference.astype(np.uint8)).energy_inside
    assert found.energy == pytest.approx(energy)
    highest = values == values.max()
    assert found.pointing == pytest.approx(reference[highest].mean())


def test_as_many_pixels_as_the_reference_has_are_compared_with_it(rng):
    values, reference = rng.permutation(30 * 44).reshape(SHAPE).astype(np.float32), shape_of(rng)
    hottest = values >= np.sort(values.ravel())[-reference.sum()]
    expected = (hottest & reference).sum() / (hottest | reference).sum()
    assert Ranking(values).score(reference).iou == pytest.approx(expected)


def test_equal_pixels_share_what_is_left():
    # Four of six pixels are wanted: one is the hottest, the other three are among four equal ones, of which two are in.
    values = np.array([[5, 1, 1, 1, 1, 0]], np.float32)
    reference = np.array([[1, 1, 1, 0, 0, 1]], bool)
    common = 1 + 3 * 2 / 4
    assert Ranking(values).score(reference).iou == pytest.approx(common / (8 - common))


@pytest.mark.parametrize("right", [40, 43])
def test_by_chance_a_map_reaches_what_random_maps_in_the_lungs_reach_on_average(rng, right):
    lungs, reference = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    lungs[5:25, 4:40] = True
    reference[8:20, 30:right] = True
    chance = Ranking(lungs).score(reference)
    within, area = (reference & lungs).sum(), reference.sum()
    assert chance.energy == chance.pointing == within / lungs.sum()
    # Precision in the lungs for the part that is in them, and in the whole image for the rest.
    expected = within / area * within / lungs.sum() + (area - within) / area * reference.mean()
    assert chance.average_precision == pytest.approx(expected)
    # Any values in the lungs, and less outside.
    maps = [np.where(lungs, 1 + rng.random(SHAPE), 0.5 * rng.random(SHAPE)) for _ in range(300)]
    drawn = [Ranking(values).score(reference) for values in maps]
    assert chance.iou == pytest.approx(np.mean([one.iou for one in drawn]), rel=0.03)
    assert chance.pointing == pytest.approx(np.mean([one.pointing for one in drawn]), abs=0.08)
    if within == area:
        # In 720 pixels the first ones of a random order still raise it by 4 %.
        assert chance.average_precision == pytest.approx(np.mean([one.average_precision for one in drawn]), rel=0.05)


def test_a_map_of_nothing_prefers_nothing(rng):
    reference = shape_of(rng)
    found = Ranking(np.zeros(SHAPE, np.float32)).score(reference)
    share = reference.mean()
    assert (found.energy, found.pointing, found.average_precision) == pytest.approx((share, share, share))
    assert found == Ranking(np.full(SHAPE, 7.0, np.float32)).score(reference)


def test_the_reference_itself_is_the_best_map(rng):
    reference = shape_of(rng)
    found = Ranking(reference).score(reference)
    assert (found.energy, found.pointing, found.average_precision, found.iou) == (1, 1, 1, 1)


def test_rounding_does_not_choose_among_equal_maxima(rng):
    values = np.ones(SHAPE, np.float32)
    values[: SHAPE[0] // 2] = 0.5
    noisy = (values * (1 - rng.integers(0, 4, SHAPE) * np.finfo(np.float32).eps)).astype(np.float32)
    reference = shape_of(rng)
    expected, found = Ranking(values).score(reference), Ranking(noisy).score(reference)
    assert found.pointing == expected.pointing
    assert found.average_precision == pytest.approx(expected.average_precision)
    assert found.iou == pytest.approx(expected.iou)
