"""Metrics of decisions, all computed from confusion matrices, for one matrix or a stack of them.

A confusion matrix has rows = true class, columns = predicted class; its entries may be the weights of a resample. Per
class means one-vs-rest: tp, fn, fp, tn of that class against all others. Undefined values (a denominator of 0) are NaN
here and become null with a reason in `cxrtool.evaluation.summary`; they are never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

PER_CLASS = ("sensitivity", "specificity", "precision", "npv", "f1")
"""The one-vs-rest metrics of decisions, in the order in which tables show them."""


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Element-wise quotient, NaN where the denominator is 0.

    >>> divide(np.array([1.0, 0.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    quotient = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def sums_by(index: IntArray, values: NDArray[Any], count: int) -> FloatArray:
    """The sums (count,) or (count, ...) of values (n,) or (n, ...) with the same index (n,).

    >>> sums_by(np.array([0, 2, 0]), np.array([1.0, 2.0, 3.0]), 3).tolist()
    [4.0, 0.0, 2.0]
    """
    columns = values.reshape(len(values), -1).T
    sums = np.stack([np.bincount(index, column, minlength=count).astype(np.float64) for column in columns], axis=1)
    return sums.reshape(count, *values.shape[1:])


def confusion_matrix(truth: IntArray, predicted: IntArray, classes: int) -> FloatArray:
    """Count images by true and predicted class: (K, K), rows = true, from (n,) class indices.

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    cells = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.float64)


def class_metrics(confusion: FloatArray) -> dict[str, FloatArray]:
    """Sensitivity, specificity, precision, negative predictive value and F1 of every class.

    Args:
        confusion: (..., K, K), rows = true.

    Returns:
        One (..., K) array for each name of `PER_CLASS`, NaN where undefined. F1 is 2 tp / (2 tp + fp + fn), hence 0
        for a class that is present but never predicted.

    >>> counts = np.array([[8.0, 2.0], [1.0, 9.0]])
    >>> class_metrics(counts)["sensitivity"].tolist()
    [0.8, 0.9]
    """
    tp = np.diagonal(confusion, axis1=-2, axis2=-1)
    fn = confusion.sum(axis=-1) - tp
    fp = confusion.sum(axis=-2) - tp
    tn = confusion.sum(axis=(-2, -1))[..., None] - tp - fn - fp
    return {
        "sensitivity": divide(tp, tp + fn),
        "specificity": divide(tn, tn + fp),
        "precision": divide(tp, tp + fp),
        "npv": divide(tn, tn + fn),
        "f1": divide(2 * tp, 2 * tp + fp + fn),
    }


def accuracy(confusion: FloatArray) -> FloatArray:
    """Share of correctly predicted images, of (..., K, K) matrices.

    >>> accuracy(np.array([[8.0, 2.0], [1.0, 9.0]])).item()
    0.85
    """
    return divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def matthews(confusion: FloatArray) -> FloatArray:
    """Matthews correlation coefficient for any number of classes, in [-1, 1].

    The R_K statistic of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient"; for two classes it is Matthews' own. NaN where only one class is true or predicted.

    Args:
        confusion: (..., K, K), rows = true.

    >>> matthews(np.array([[5.0, 0.0], [0.0, 5.0]])).item()
    1.0
    """
    total = confusion.sum(axis=(-2, -1))
    true = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    agreement = np.trace(confusion, axis1=-2, axis2=-1) * total - (true * predicted).sum(axis=-1)
    spread_true = total**2 - (true**2).sum(axis=-1)
    spread_predicted = total**2 - (predicted**2).sum(axis=-1)
    return divide(agreement, np.sqrt(spread_true * spread_predicted))


def macro(values: FloatArray, defined: NDArray[np.bool_]) -> FloatArray:
    """Unweighted mean over the classes that are defined in the whole sample.

    A resample in which one of these classes is undefined gives NaN instead of a mean over fewer classes: otherwise the
    replicates would mix different statistics.

    Args:
        values: (..., K).
        defined: (K,) the classes to average over.

    Returns:
        (...) means; NaN where no class is defined.

    >>> macro(np.array([0.5, np.nan, 1.0]), np.array([True, False, True])).item()
    0.75
    """
    if not defined.any():
        return np.full(values.shape[:-1], np.nan)
    mean: FloatArray = values[..., defined].mean(axis=-1)
    return mean


def mean_defined(values: FloatArray) -> FloatArray:
    """Mean over the first axis (runs or repeats) of what is defined there; NaN where nothing is.

    >>> mean_defined(np.array([[0.5, np.nan], [1.0, np.nan]])).tolist()
    [0.75, nan]
    """
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def spread(values: FloatArray) -> FloatArray:
    """Standard deviation (ddof 1) over the first axis of what is defined there; NaN where fewer than two are.

    >>> spread(np.array([1.0, 2.0, np.nan])).item()
    0.7071067811865476
    """
    defined = ~np.isnan(values)
    count = defined.sum(axis=0).astype(np.float64)
    squares = np.where(defined, (values - mean_defined(values)) ** 2, 0.0).sum(axis=0)
    return np.sqrt(divide(squares, np.where(count > 1, count - 1, 0.0)))
