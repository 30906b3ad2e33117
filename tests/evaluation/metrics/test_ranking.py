import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from cxrtool.evaluation.metrics.ranking import Ranking, mean_precision, mean_roc

# Few distinct scores, so that ties are common.
cases = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40).filter(
    lambda rows: len({positive for _, positive, weight in rows if weight}) == 2
)


def unpack(rows):
    score, positive, weight = (np.array(column) for column in zip(*rows, strict=True))
    return score / 6, positive, weight.astype(float)


@given(cases)
def test_weighted_areas_equal_scikit_learn(rows):
    score, positive, weight = unpack(rows)
    auc, precision = Ranking.of(score, positive).areas(weight[:, None])
    assert auc[0] == pytest.approx(oracle.roc_auc_score(positive, score, sample_weight=weight))
    assert precision[0] == pytest.approx(oracle.average_precision_score(positive, score, sample_weight=weight))


@given(cases)
def test_weights_are_repetitions(rows):
    score, positive, weight = unpack(rows)
    times = weight.astype(int)
    weighted = Ranking.of(score, positive).areas(weight[:, None])
    repeated = Ranking.of(np.repeat(score, times), np.repeat(positive, times)).areas(np.ones((times.sum(), 1)))
    np.testing.assert_allclose(weighted, repeated)


@given(cases)
def test_only_the_order_of_scores_matters(rows):
    score, positive, weight = unpack(rows)
    once = Ranking.of(score, positive).areas(weight[:, None])
    np.testing.assert_allclose(Ranking.of(np.exp(3 * score), positive).areas(weight[:, None]), once)
    # Turning scores and classes round gives the same area.
    turned, _ = Ranking.of(-score, ~positive).areas(weight[:, None])
    np.testing.assert_allclose(turned, once[0])


def test_many_weightings_at_once_are_each_of_them():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 30, 80) / 30, rng.random(80) < 0.4
    weights = rng.integers(0, 3, (80, 25)).astype(float)
    ranking = Ranking.of(score, positive)
    together = ranking.areas(weights)
    for column in range(25):
        single = ranking.areas(weights[:, [column]])
        assert together[0][column] == pytest.approx(single[0][0], rel=1e-13)
        assert together[1][column] == pytest.approx(single[1][0], rel=1e-13)


@pytest.mark.parametrize("positive", [np.zeros(5, bool), np.ones(5, bool)])
def test_one_class_has_no_area(positive):
    auc, precision = Ranking.of(np.arange(5.0), positive).areas(np.ones((5, 1)))
    assert np.isnan(auc).all()
    assert np.isnan(precision).all()


def test_the_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    score, positive = rng.integers(0, 20, 60) / 20, rng.random(60) < 0.5
    false_rate, true_rate, precision = Ranking.of(score, positive).curve()
    theirs = oracle.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, theirs[0][1:])
    np.testing.assert_allclose(true_rate, theirs[1][1:])
    their_precision = oracle.precision_recall_curve(positive, score)[0][:-1][::-1]
    np.testing.assert_allclose(precision, their_precision)


def test_the_mean_of_curves_has_the_mean_area():
    rng = np.random.default_rng(5)
    grid = np.linspace(0, 1, 20001)
    rankings = [Ranking.of(rng.normal(size=50) + (k % 2), np.arange(50) % 3 == 0) for k in range(4)]
    ones = np.ones((50, 1))
    areas = np.array([ranking.areas(ones) for ranking in rankings])[..., 0]
    curves = [ranking.curve() for ranking in rankings]
    assert np.trapezoid(mean_roc([c[:2] for c in curves], grid), grid) == pytest.approx(areas[:, 0].mean(), abs=1e-3)
    assert mean_precision([c[1:] for c in curves], grid).mean() == pytest.approx(areas[:, 1].mean(), abs=1e-3)
