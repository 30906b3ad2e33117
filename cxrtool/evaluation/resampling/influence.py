"""Influence functions: the standard error of a metric of many patients, without resamples.

The influence of a row is the derivative of the metric with respect to its weight (Hampel 1974, "The Influence Curve and
Its Role in Robust Estimation"). A patient has the sum over all of its rows, so that patients are the clusters. The sum
of the squared influences of the patients, about the mean of their label, is the variance that resampling the patients
within label would give; for the area under the ROC curve it is the variance of DeLong et al. (1988) with the clusters
of Obuchowski (1997).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

MANY_PATIENTS = 20_000
"""From so many patients on, intervals come from influence functions: 2,000 resamples would take minutes."""

ENOUGH_PATIENTS = 2_000
"""The patients that a group or a bin of so large a test set needs for them; the intervals of fewer are resampled."""

STEP = 1e-5
"""Relative change of a count in a numerical derivative."""


@dataclass(frozen=True)
class Error:
    """The standard error of a metric, in place of its resamples; NaN where the metric is undefined."""

    value: float


def standard_error(influence: FloatArray, strata: IntArray) -> FloatArray:
    """The standard error (...) from the influence (P, ...) of each patient, about the mean of its stratum (P,)."""
    return np.sqrt(_cumulant(influence, strata, 2))


def skewness(influence: FloatArray, strata: IntArray) -> FloatArray:
    """The skewness (...) of the resamples from the influence (P, ...) of each patient, 0 where there is no spread."""
    error = standard_error(influence, strata)
    found: FloatArray = _cumulant(influence, strata, 3) / np.where(error > 0, error, 1.0) ** 3
    return found


def _cumulant(influence: FloatArray, strata: IntArray, order: int) -> FloatArray:
    total: FloatArray = np.zeros(influence.shape[1:])
    for stratum in np.unique(strata):
        own = influence[strata == stratum]
        total = total + ((own - own.mean(axis=0)) ** order).sum(axis=0)
    return total


def covariance(patient: IntArray, kind: IntArray, values: FloatArray, kinds: int, strata: IntArray) -> FloatArray:
    """The covariance (M, M) of the sums of `values` (n,) by `kind` (n,), when patients are resampled within strata.

    Args:
        patient: (n,) index of the patient of each row.
        kind: (n,) 0 to M - 1.
        values: (n,) what each row adds.
        kinds: M.
        strata: (P,).
    """
    from scipy.sparse import csr_array

    sums = csr_array((values, (patient, kind)), shape=(len(strata), kinds))
    found: FloatArray = (sums.T @ sums).toarray()
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        mean = np.asarray(sums[members].sum(axis=0)).ravel()
        found = found - np.outer(mean, mean) / len(members)
    return found


def gradients(function: Callable[[FloatArray], dict[str, FloatArray]], totals: FloatArray) -> dict[str, FloatArray]:
    """The derivatives of metrics with respect to counts, by central differences.

    Args:
        function: From counts (units, B, M) to metrics (B, ...).
        totals: (units, M) observed counts. Only those above 0 are changed, in proportion, so that what is undefined
            stays undefined.

    Returns:
        (units * M, ...) for each metric, 0 for counts of 0.
    """
    moved = np.flatnonzero(totals)
    count, (unit, kind) = len(moved), np.unravel_index(moved, totals.shape)
    points = np.repeat(totals[:, None, :].astype(np.float64), 2 * count, axis=1)
    points[unit, np.arange(count), kind] *= 1 + STEP
    points[unit, np.arange(count, 2 * count), kind] *= 1 - STEP
    found = {}
    for name, values in function(points).items():
        rise = values[:count] - values[count:]
        found[name] = np.zeros((totals.size, *rise.shape[1:]))
        found[name][moved] = (rise.T / (2 * STEP * totals.ravel()[moved])).T
    return found
