import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from cxrtool.evaluation.metrics.calibration import (
    bin_count,
    brier_terms,
    calibration_error,
    equal_mass_bins,
    error_if_calibrated,
    intercept,
    logit,
    slope,
    top_label,
)
from cxrtool.evaluation.metrics.confusion import sums_by


def weighted_error(confidence, hit, bins, weights):
    return calibration_error(sums_by(bins, weights * (hit - confidence)[:, None], bins.max() + 1), weights.sum(axis=0))


def simulate(n, temperature=1.0, seed=0, classes=2):
    """Probabilities whose labels are drawn from them, then sharpened or flattened."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(n, classes))
    exact = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (exact.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    stated = exact ** (1 / temperature)
    return stated / stated.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize(("images", "bins"), [(5, 1), (39, 1), (40, 2), (299, 14), (300, 15), (5000, 15)])
def test_bins_hold_twenty_images_at_least(images, bins):
    assert bin_count(images) == bins
    found = equal_mass_bins(np.random.default_rng(0).random(images))
    sizes = np.bincount(found)
    assert len(sizes) == bins
    assert sizes.max() - sizes.min() <= 1


@given(st.lists(st.integers(0, 4), min_size=40, max_size=90), st.randoms())
def test_ties_share_a_bin_whatever_the_order(values, random):
    confidence = np.array(values) / 4
    found = equal_mass_bins(confidence)
    for value in set(values):
        assert len(set(found[np.array(values) == value])) == 1
    order = list(range(len(values)))
    random.shuffle(order)
    np.testing.assert_array_equal(equal_mass_bins(confidence[order]), found[order])


def test_calibration_error_by_hand():
    confidence = np.concatenate((np.full(20, 0.6), np.full(20, 0.9)))
    hit = np.concatenate((np.repeat([1.0, 0.0], [10, 10]), np.ones(20)))
    bins = equal_mass_bins(confidence)
    error = weighted_error(confidence, hit, bins, np.ones((40, 1)))
    assert error[0] == pytest.approx(0.5 * abs(0.5 - 0.6) + 0.5 * abs(1 - 0.9))
    # Weights are repetitions.
    weights = np.repeat([1.0, 3.0], 20)[:, None]
    assert weighted_error(confidence, hit, bins, weights)[0] == pytest.approx(0.25 * 0.1 + 0.75 * 0.1)
    assert np.isnan(weighted_error(confidence, hit, bins, np.zeros((40, 1)))).all()


def test_a_calibrated_model_shows_what_it_should():
    probabilities, truth = simulate(2000)
    confidence, hit = top_label(probabilities, truth)
    bins = equal_mass_bins(confidence)
    expected = error_if_calibrated(confidence, bins, np.random.default_rng(0))
    shown = [
        weighted_error(
            *top_label(probabilities, simulate(2000, seed=0)[1] if k == 0 else _redraw(probabilities, k)),
            bins,
            np.ones((2000, 1)),
        )[0]
        for k in range(60)
    ]
    assert expected == pytest.approx(np.mean(shown), rel=0.1)
    sharp, truth = simulate(2000, temperature=0.4)
    confidence, hit = top_label(sharp, truth)
    bins = equal_mass_bins(confidence)
    error = weighted_error(confidence, hit, bins, np.ones((2000, 1)))[0]
    assert error > 3 * error_if_calibrated(confidence, bins, np.random.default_rng(0))


def _redraw(probabilities, seed):
    draw = np.random.default_rng(seed).random((len(probabilities), 1))
    return (probabilities.cumsum(axis=1) < draw).sum(axis=1)


def test_brier_equals_scikit_learn():
    probabilities, truth = simulate(300)
    assert brier_terms(probabilities, truth).mean() == pytest.approx(brier_score_loss(truth == 1, probabilities[:, 1]))
    probabilities, truth = simulate(300, classes=4)
    expected = ((probabilities - np.eye(4)[truth]) ** 2).sum(axis=1).mean()
    assert brier_terms(probabilities, truth).mean() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_slope_equals_an_unpenalised_logistic_regression(temperature):
    probabilities, truth = simulate(500, temperature)
    x, y = logit(probabilities[:, 1]), truth == 1
    weights = np.random.default_rng(1).integers(0, 3, (500, 3)).astype(float)
    b, a = slope(x, y, weights)
    for column in range(3):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        model.fit(x[:, None], y, sample_weight=weights[:, column])
        assert b[column] == pytest.approx(model.coef_[0, 0], rel=1e-4)
        assert a[column] == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-4)
    assert b.mean() == pytest.approx(temperature, rel=0.35)


def test_a_start_near_by_leads_to_the_same_place():
    probabilities, truth = simulate(300)
    x, y, weights = logit(probabilities[:, 1]), truth == 1, np.ones((300, 1))
    cold = slope(x, y, weights)
    warm = slope(x, y, weights, (cold[1][0] + 0.1, cold[0][0] - 0.1))
    np.testing.assert_allclose(warm, cold, rtol=1e-6)


def test_intercept_equals_a_direct_search():
    probabilities, truth = simulate(400, 1.5)
    x, y = logit(probabilities[:, 1]) + 0.8, truth == 1
    found = intercept(x, y, np.ones((400, 1)))[0]

    def loss(a):
        return (np.logaddexp(0, a[0] + x) - y * (a[0] + x)).sum()

    assert found == pytest.approx(minimize(loss, [0.0]).x[0], abs=1e-4)
    assert found < -0.5


def test_no_finite_fit_is_undefined():
    x = np.array([-2.0, -1.0, 1.0, 2.0])
    y = np.array([False, False, True, True])
    weights = np.ones((4, 2))
    weights[2:, 1] = 0
    assert np.isnan(slope(x, y, weights)[0]).all()
    found = intercept(x, y, weights)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_certain_probabilities_stay_finite():
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
