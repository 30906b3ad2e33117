import doctest
import importlib
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as oracle

import cxrtool.evaluation
from cxrtool.evaluation.metrics.confusion import (
    accuracy,
    class_metrics,
    confusion_matrix,
    macro,
    matthews,
    mean_defined,
    spread,
)

counts = arrays.arrays(np.int64, (4, 4), elements=st.integers(0, 30)).filter(lambda matrix: matrix.sum() > 0)


def images_of(matrix):
    true, called = np.nonzero(matrix)
    times = matrix[true, called]
    return np.repeat(true, times), np.repeat(called, times)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(cxrtool.evaluation.__path__)])
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(importlib.import_module(f"cxrtool.evaluation.{module}")).failed == 0


@given(counts)
def test_the_matrix_counts_its_images_back(matrix):
    assert np.array_equal(confusion_matrix(*images_of(matrix), 4), matrix)


@given(counts)
def test_everything_equals_scikit_learn(matrix):
    truth, predicted = images_of(matrix)
    floats = matrix.astype(float)
    assert accuracy(floats) == pytest.approx(oracle.accuracy_score(truth, predicted))
    mine = class_metrics(floats)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        truth, predicted, labels=range(4), zero_division=np.nan
    )
    np.testing.assert_allclose(mine["sensitivity"], np.where(support > 0, recall, np.nan))
    np.testing.assert_allclose(mine["precision"], precision)
    # scikit-learn calls F1 undefined only where nothing is true and nothing was called, as we do.
    np.testing.assert_allclose(mine["f1"], f1)
    expected = oracle.matthews_corrcoef(truth, predicted)
    one_class = len(set(truth)) < 2 or len(set(predicted)) < 2
    assert np.isnan(matthews(floats)) if one_class else matthews(floats) == pytest.approx(expected, abs=1e-12)
    if (support > 0).any():
        balanced = macro(mine["sensitivity"], support > 0)
        with np.errstate(all="ignore"):
            assert balanced == pytest.approx(np.mean(recall[support > 0]))


@given(counts)
def test_specificity_is_the_sensitivity_of_the_rest(matrix):
    floats = matrix.astype(float)
    for k in range(4):
        rest = [j for j in range(4) if j != k]
        collapsed = np.array(
            [
                [floats[k, k], floats[k, rest].sum()],
                [floats[rest, k].sum(), floats[np.ix_(rest, rest)].sum()],
            ]
        )
        two = class_metrics(collapsed)
        mine = class_metrics(floats)
        np.testing.assert_allclose(mine["specificity"][k], two["sensitivity"][1])
        np.testing.assert_allclose(mine["npv"][k], two["precision"][1])


@given(counts, st.permutations(range(4)))
def test_the_names_of_classes_do_not_matter(matrix, order):
    moved = matrix[np.ix_(order, order)].astype(float)
    floats = matrix.astype(float)
    assert accuracy(moved) == accuracy(floats)
    np.testing.assert_allclose(matthews(moved), matthews(floats), atol=1e-12)
    for name, values in class_metrics(floats).items():
        np.testing.assert_array_equal(class_metrics(moved)[name], values[list(order)])


def test_a_stack_of_matrices_is_each_of_them():
    stack = np.random.default_rng(0).integers(0, 9, (5, 7, 3, 3)).astype(float)
    together = class_metrics(stack)
    for index in np.ndindex(5, 7):
        for name, values in class_metrics(stack[index]).items():
            np.testing.assert_array_equal(together[name][index], values)
        assert accuracy(stack)[index] == accuracy(stack[index])
        np.testing.assert_array_equal(matthews(stack)[index], matthews(stack[index]))


def test_what_is_undefined_is_not_zero():
    absent = class_metrics(np.array([[5.0, 0.0], [0.0, 0.0]]))
    assert np.isnan(absent["sensitivity"][1])
    assert np.isnan(absent["precision"][1])
    assert np.isnan(absent["f1"][1])
    assert np.isnan(absent["specificity"][0])
    assert np.isnan(absent["npv"][0])
    assert class_metrics(np.array([[5.0, 0.0], [3.0, 0.0]]))["f1"][1] == 0


def test_a_macro_average_never_mixes_compositions():
    values = np.array([[0.5, np.nan, 1.0], [0.5, 0.3, np.nan]])
    mean = macro(values, np.array([True, False, True]))
    assert mean[0] == 0.75
    assert np.isnan(mean[1])
    assert np.isnan(macro(values, np.zeros(3, bool))).all()


def test_spread_is_that_of_numpy_where_two_are_defined():
    values = np.random.default_rng(1).normal(size=(6, 3))
    np.testing.assert_allclose(spread(values), values.std(axis=0, ddof=1))
    values[:5, 0] = np.nan
    values[:4, 1] = np.nan
    assert np.isnan(spread(values)[0])
    assert spread(values)[1] == pytest.approx(values[4:, 1].std(ddof=1))
    np.testing.assert_allclose(mean_defined(values), np.nanmean(values, axis=0))
