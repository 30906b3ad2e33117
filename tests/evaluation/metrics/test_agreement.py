"""Agreement of scores, against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from cxrtool.evaluation.metrics import agreement
from cxrtool.evaluation.metrics.agreement import Agreement, as_json

CLASSES = 4


def scores(count=90, seed=0, patients=60):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 9, count).astype(float)
    found = np.clip(truth * 0.8 + rng.normal(0.5, 1.2, count), 0, 8).round(1)
    bins = np.array([0.5, 2.5, 5.5])
    strata = (np.digitize(found, bins), np.digitize(truth, bins))
    return Agreement(found, truth, rng.integers(0, patients, count), strata, CLASSES)


def test_figures_are_those_of_other_libraries():
    one = scores()
    found = one.figures(0)
    difference = one.found - one.truth
    assert found["mae"].value == pytest.approx(np.abs(difference).mean())
    assert found["bias"].value == pytest.approx(difference.mean())
    assert found["sd_of_differences"].value == pytest.approx(difference.std(ddof=1))
    assert found["pearson"].value == pytest.approx(stats.pearsonr(one.found, one.truth)[0])
    assert found["spearman"].value == pytest.approx(stats.spearmanr(one.found, one.truth)[0])
    kappa = cohen_kappa_score(one.strata[1], one.strata[0], weights="quadratic")
    assert found["weighted_kappa"].value == pytest.approx(kappa)
    assert found["stratum_accuracy"].value == pytest.approx((one.strata[0] == one.strata[1]).mean())
    table = one.confusion()
    assert np.trace(table) == (one.strata[0] == one.strata[1]).sum()
    assert np.sum(table) == len(one.truth)
    low, high = as_json(found)["limits_of_agreement"]
    assert low == pytest.approx(difference.mean() - 1.96 * difference.std(ddof=1))
    assert low < difference.mean() < high


def test_each_value_is_in_its_interval_and_the_interval_is_of_patients():
    one = scores()
    for name, figure in one.figures(0).items():
        assert figure.low < figure.value < figure.high, name
    # Every patient has the same image ten times: that adds no certainty.
    again = [np.repeat(values, 10) for values in (one.found, one.truth, np.arange(len(one.truth)))]
    single = Agreement(one.found, one.truth, np.arange(len(one.truth))).figures(0)["pearson"]
    repeated = Agreement(*again).figures(0)["pearson"]
    assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


def test_many_patients_have_the_interval_of_resamples(monkeypatch):
    one = scores(3000, patients=2500)
    resampled = one.figures(0)
    monkeypatch.setattr(agreement, "MANY_PATIENTS", 100)
    for name, figure in one.figures(0).items():
        assert "influence" in figure.method, name
        width = resampled[name].high - resampled[name].low
        assert abs(figure.low - resampled[name].low) < 0.08 * width, name
        assert abs(figure.high - resampled[name].high) < 0.08 * width, name


def test_equal_scores_have_no_correlation():
    same = Agreement(np.ones(5), np.arange(5.0), np.arange(5)).figures(0)
    assert same["pearson"].value is None
    assert "equal" in same["pearson"].reason
    assert same["mae"].value == pytest.approx(1.4)


def test_patients_are_resampled_within_their_groups():
    one = scores()
    # Two groups of which each has a truth of its own: with both sizes fixed, the mean truth cannot vary.
    patients = np.arange(len(one.truth))
    group = (patients % 2).astype(np.intp)
    truth, found = np.where(group, 8.0, 0.0), np.zeros(len(patients))
    free = Agreement(found, truth, patients).figures(0)["bias"]
    held = Agreement(found, truth, patients, within=group).figures(0)["bias"]
    assert free.low < free.value < free.high
    assert held.value == free.value
    assert held.low is None
    assert "same in every resample" in held.reason
