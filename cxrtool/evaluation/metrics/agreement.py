"""Agreement of scores with a rater's: of extents, of severities in order, of two readers.

As studies of severity scores report it: mean absolute error, Pearson's and Spearman's correlation, Cohen's kappa with
quadratic weights (1968), and the limits of agreement (Bland & Altman 1986). Each is of images, with an interval over
patients. Every figure is a function of the means of a few moments of an image, so that a resample is one product of
matrices, and many patients have influence functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.influence import MANY_PATIENTS, Error, standard_error
from cxrtool.evaluation.resampling.intervals import RESAMPLES, Measure, draw_patients, measure, method_of

LIMITS = 1.96
"""Standard deviations from the bias to the limits of agreement."""

STEP = 1e-4
"""Of a numerical derivative, in standard deviations of a moment."""


@dataclass(frozen=True)
class Agreement:
    """Scores and what a rater gave, of n images.

    Attributes:
        found: (n,).
        truth: (n,).
        patients: The patient of each image (n,), sorted as its number.
        strata: The stratum found and the true one, each (n,) from 0, in order; None where scores have no strata.
        classes: Number of strata.
        repeats: The repeat of each row (n,), where an image has a row in each: a figure is the mean over the repeats.
        within: The group of each patient (P,), within which patients are resampled; None resamples all together.
        by_patient: Whether patients are known; else every image counts as one.
    """

    found: FloatArray
    truth: FloatArray
    patients: IntArray
    strata: tuple[IntArray, IntArray] | None = None
    classes: int = 0
    repeats: IntArray | None = None
    within: IntArray | None = None
    by_patient: bool = True

    def figures(self, seed: int, resamples: int = RESAMPLES) -> dict[str, Measure]:
        """Every figure with its interval; the same `seed` draws the same patients."""
        difference = self.found - self.truth
        count = min(map(len, self._by_repeat()))
        named: dict[str, tuple[FloatArray, Callable[[FloatArray], FloatArray]]] = {
            "mae": (np.abs(difference)[:, None], _mean),
            "bias": (difference[:, None], _mean),
            "sd_of_differences": (_powers(difference), partial(_deviation, count=count)),
            "pearson": (_pair(self.found, self.truth), _correlation),
            "spearman": (_pair(self._ranks(self.found), self._ranks(self.truth)), _correlation),
        }
        if self.strata:
            one, other = self.strata
            cells = np.zeros((len(one), self.classes**2))
            cells[np.arange(len(one)), other * self.classes + one] = 1
            named["weighted_kappa"] = (cells, _kappa)
            named["stratum_accuracy"] = ((one == other).astype(np.float64)[:, None], _mean)
        return {
            name: self._measure(*parts, seed, resamples, name == "stratum_accuracy") for name, parts in named.items()
        }

    def _ranks(self, values: FloatArray) -> FloatArray:
        found = np.empty(len(values))
        for rows in self._by_repeat():
            found[rows] = ranks(values[rows])
        return found

    def _by_repeat(self) -> list[IntArray]:
        repeats = np.zeros(len(self.truth), np.intp) if self.repeats is None else self.repeats
        return [np.flatnonzero(repeats == repeat) for repeat in np.unique(repeats)]

    def _measure(
        self,
        moments: FloatArray,
        figure: Callable[[FloatArray], FloatArray],
        seed: int,
        resamples: int,
        proportion: bool,
    ) -> Measure:
        """A figure of the mean moments (n, M) of each repeat, with its interval over the patients."""
        _, groups = np.unique(self.patients, return_inverse=True)
        count = int(groups.max()) + 1
        strata = np.zeros(count, np.intp) if self.within is None else self.within
        influence = count >= MANY_PATIENTS
        drawn = (
            None if influence else draw_patients(strata, resamples, np.random.default_rng(seed)).T.astype(np.float64)
        )
        values, moved = [], []
        for rows in self._by_repeat():
            part, own = moments[rows], groups[rows]
            sizes = np.bincount(own, minlength=count).astype(np.float64)
            sums = np.stack([np.bincount(own, column, count) for column in part.T], 1)
            mean = part.mean(0)
            values.append(float(figure(mean[None])[0]))
            if drawn is None:
                moved.append((sums - mean * sizes[:, None]) @ _slopes(part, mean, figure) / len(part))
            else:
                with np.errstate(invalid="ignore", divide="ignore"):
                    moved.append(figure((drawn @ sums) / (drawn @ sizes)[:, None]))
        change = np.mean(moved, axis=0)
        return measure(
            float(np.mean(values)),
            Error(float(standard_error(change, strata))) if influence else change,
            patients=count,
            proportion=proportion,
            method=method_of(by_patient=self.by_patient, by_influence=influence),
            sd_repeats=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
            undefined="undefined: all values are equal",
        )

    def confusion(self) -> list[list[int]]:
        """Images of each true stratum (rows) by the stratum found (columns); empty without strata."""
        if not self.strata:
            return []
        one, other = self.strata
        counts = np.bincount(other * self.classes + one, minlength=self.classes**2)
        return [[int(count) for count in row] for row in counts.reshape(self.classes, self.classes)]


def as_json(figures: dict[str, Measure]) -> dict[str, Any]:
    """The figures as JSON, with the limits of agreement."""
    result: dict[str, Any] = {name: figure.as_json() for name, figure in figures.items()}
    bias, spread = figures["bias"].value, figures["sd_of_differences"].value
    if bias is not None and spread is not None:
        result["limits_of_agreement"] = [bias - LIMITS * spread, bias + LIMITS * spread]
    return result


def ranks(values: FloatArray) -> FloatArray:
    """Ranks from 0 of (n,) values, equal values at their mean rank.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: FloatArray = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return mean


def _slopes(moments: FloatArray, mean: FloatArray, figure: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """The derivative (M,) of a figure with respect to the mean moments (M,)."""
    step = STEP * np.maximum(moments.std(0), 1e-12)
    around = np.repeat(mean[None], 2 * len(mean), 0)
    around[np.arange(len(mean)) * 2, np.arange(len(mean))] += step
    around[np.arange(len(mean)) * 2 + 1, np.arange(len(mean))] -= step
    moved = figure(around)
    slopes: FloatArray = (moved[::2] - moved[1::2]) / (2 * step)
    return slopes


def _mean(moments: FloatArray) -> FloatArray:
    return moments[:, 0]


def _powers(values: FloatArray) -> FloatArray:
    return np.stack([values, values**2], 1)


def _deviation(moments: FloatArray, count: int) -> FloatArray:
    """The standard deviation of a sample of `count`, from which a population's is estimated."""
    spread: FloatArray = np.sqrt(np.maximum(moments[:, 1] - moments[:, 0] ** 2, 0) * (count / max(1, count - 1)))
    return spread


def _pair(one: FloatArray, other: FloatArray) -> FloatArray:
    """The moments of a correlation; centred, so that no digits are lost."""
    x, y = one - one.mean(), other - other.mean()
    return np.stack([x, y, x * x, y * y, x * y], 1)


def _correlation(moments: FloatArray) -> FloatArray:
    x, y, xx, yy, xy = moments.T
    spread = np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = np.where(spread > 0, (xy - x * y) / np.sqrt(spread), np.nan)
    return found


def _kappa(shares: FloatArray) -> FloatArray:
    classes = round(np.sqrt(shares.shape[1]))
    table = shares.reshape(-1, classes, classes)
    order = np.arange(classes)
    weights = (order[:, None] - order) ** 2
    expected = np.einsum("bi,bj,ij->b", table.sum(2), table.sum(1), weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: FloatArray = np.where(expected > 0, 1 - (table * weights).sum((1, 2)) / expected, np.nan)
    return found
