import numpy as np
import pytest

from cxrtool.evaluation.metrics.ranking import Ranking, mean_precision, mean_roc
from cxrtool.evaluation.resampling.bands import GRID, curve_bands
from cxrtool.evaluation.scores import scores_of


@pytest.mark.parametrize("digits", [1, 6])
def test_weighted_curves_are_those_of_repeated_images(digits):
    rng = np.random.default_rng(3)
    positive = rng.random(60) < 0.4
    score = np.round(rng.normal(size=60) + positive, digits)
    weights = rng.integers(0, 3, size=(60, 5)).astype(float)
    ranking = Ranking.of(score, positive)
    roc, precision = ranking.sensitivities(weights, GRID), ranking.precisions(weights, GRID[1:])
    for b in range(weights.shape[1]):
        again = np.repeat(np.arange(60), weights[:, b].astype(int))
        curve = Ranking.of(score[again], positive[again]).curve()
        assert roc[:, b] == pytest.approx(mean_roc([curve[:2]], GRID))
        assert precision[:, b] == pytest.approx(mean_precision([curve[1:]], GRID[1:]))


def test_a_weighting_without_the_class_has_no_curve():
    ranking = Ranking.of(np.array([0.1, 0.5, 0.9]), np.array([False, True, False]))
    weights = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    for values in (ranking.sensitivities(weights, GRID), ranking.precisions(weights, GRID[1:])):
        assert not np.isnan(values[:, 0]).any()
        assert np.isnan(values[:, 1]).all()


def test_the_band_contains_the_curve_and_narrows_with_images(make_predictions):
    widths = []
    for count in (60, 600):
        scores = scores_of(make_predictions(count, folds=2))
        pair = curve_bands(scores, 0, resamples=200)
        runs = [scores.run == run for run in range(2)]
        curves = [Ranking.of(scores.probabilities[own, 0], scores.truth[own] == 0).curve() for own in runs]
        means = mean_roc([curve[:2] for curve in curves], GRID), mean_precision([c[1:] for c in curves], GRID[1:])
        for band, mean in zip(pair, means, strict=True):
            assert (band.low <= mean + 1e-9).all()
            assert (band.high >= mean - 1e-9).all()
        widths.append([float((band.high - band.low).mean()) for band in pair])
    assert (np.array(widths[0]) > 2 * np.array(widths[1])).all()


def test_without_variation_there_is_no_band(make_predictions):
    predictions = make_predictions(40, ("covid", "normal"))
    for i, row in enumerate(predictions.rows):
        predictions.probabilities[i] = [0.9, 0.1] if row["label"] == "covid" else [0.1, 0.9]
    roc, precision = curve_bands(scores_of(predictions), 0, resamples=50)
    assert roc is None
    assert precision is None


def test_the_coverage_is_near_its_level(make_predictions):
    """At a false positive rate of 0.2, in 40 samples of a known population."""
    many = scores_of(make_predictions(20_000, seed=99))
    true = mean_roc([Ranking.of(many.probabilities[:, 0], many.truth == 0).curve()[:2]], GRID)
    at = int(np.searchsorted(GRID, 0.2))
    inside = 0
    for seed in range(40):
        band, _ = curve_bands(scores_of(make_predictions(150, seed=seed)), 0, seed=seed, resamples=200)
        inside += band.low[at] <= true[at] <= band.high[at]
    assert 34 <= inside <= 40
