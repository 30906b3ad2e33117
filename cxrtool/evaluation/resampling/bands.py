"""Bands around ROC and precision-recall curves: intervals at each point, from the resamples of the areas below them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, mean_defined
from cxrtool.evaluation.metrics.estimates import CELLS_AT_ONCE, FEWEST_AT_ONCE
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling.intervals import RESAMPLES, UNDEFINED_SHARE, draw_patients, percents, reach
from cxrtool.evaluation.scores import Scores

GRID = np.linspace(0.0, 1.0, 201)
"""False positive rates, or recalls, at which there is an interval."""

MOST_CELLS = 40_000_000
"""Rows times resamples; with more rows fewer resamples, as the band is then hardly wider than the curve."""

FEWEST = 200

PATIENTS_AT_ONCE = 4096

STEADY, _REACHES = 100, (16, 8, 4, 2, 1)
"""Images from which a slope is known to about a tenth, and how many points of the grid to both sides are taken."""


@dataclass(frozen=True)
class Band:
    """A 95 % interval at each point of a curve: `x`, `low` and `high`, (m,) each."""

    x: FloatArray
    low: FloatArray
    high: FloatArray


def curve_bands(
    scores: Scores, k: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Band | None, Band | None]:
    """The bands of the ROC and the precision-recall curve of class k, each the mean over the runs.

    Patients are resampled as for every other interval; of many patients the influence is taken. An interval holds for
    its own false positive rate, or recall; the whole curve is inside the band less often than in 95 % of samples. A
    resample has fewer distinct images than the sample, so that in small runs its curve starts too high: the interval is
    moved back by the median difference.

    Returns:
        None where more than 5 % of the resamples have no curve, or all have the same one.
    """
    rows = [np.flatnonzero(scores.run == run) for run in range(len(scores.runs))]
    rankings = [
        (scores.patient[own], Ranking.of(scores.probabilities[own, k], scores.truth[own] == k))
        for own in rows
        if len(own)
    ]
    values = _curves(rankings, np.ones((scores.patients, 1)))
    if scores.by_influence:
        found = zip((GRID, GRID[1:]), values, (_roc_influence, _precision_influence), strict=True)
        roc_band, precision_band = (_influence_band(scores, k, x, value[:, 0], moving) for x, value, moving in found)
        return roc_band, precision_band
    resamples = min(resamples, max(FEWEST, MOST_CELLS // len(scores)))
    drawn = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    step = max(FEWEST_AT_ONCE, CELLS_AT_ONCE // max(len(own) for own in rows))
    parts = [_curves(rankings, drawn[:, begin : begin + step].astype(float)) for begin in range(0, resamples, step)]
    roc, precision = (np.concatenate(curves, axis=1) for curves in zip(*parts, strict=True))
    return _band(GRID, values[0], roc, scores.patients), _band(GRID[1:], values[1], precision, scores.patients)


def _curves(rankings: Sequence[tuple[IntArray, Ranking]], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean sensitivities and mean precisions (m, B) over the runs where they are defined."""
    roc = [ranking.sensitivities(weights[patient], GRID) for patient, ranking in rankings]
    precision = [ranking.precisions(weights[patient], GRID[1:]) for patient, ranking in rankings]
    return mean_defined(np.stack(roc)), mean_defined(np.stack(precision))


def _band(x: FloatArray, value: FloatArray, drawn: FloatArray, patients: int) -> Band | None:
    """The band from the curve (m, 1) and its resamples (m, B)."""
    defined = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if defined.shape[1] < (1 - UNDEFINED_SHARE) * drawn.shape[1] or np.ptp(defined, axis=1).max() < 1e-12:
        return None
    low, high = np.percentile(defined, percents(patients), axis=1)
    excess = np.median(defined, axis=1) - value[:, 0]
    return Band(x, np.clip(low - excess, 0.0, 1.0), np.clip(high - excess, 0.0, 1.0))


@dataclass(frozen=True)
class _Moving:
    """How images of one run and one kind (of the class, or of the rest) move a curve at the m points of its grid.

    An image moves point j by `passed[j]` if it is above the threshold of the point, and by `always[j]` anyway.

    Attributes:
        first: (n,) the first point whose threshold each image is above.
    """

    first: IntArray
    passed: FloatArray
    always: FloatArray


def _influence_band(
    scores: Scores, k: int, grid: FloatArray, value: FloatArray, moving: Callable[..., tuple[_Moving, _Moving]]
) -> Band | None:
    """The band of the mean curve `value` (m,) of class k, from the influence of each patient at each point."""
    parts: list[tuple[IntArray, _Moving]] = []
    runs = 0
    for run in range(len(scores.runs)):
        rows = np.flatnonzero(scores.run == run)
        positive = scores.truth[rows] == k
        if not positive.any() or positive.all():
            continue
        runs += 1
        pair = moving(Ranking.of(scores.probabilities[rows, k], positive), positive, grid)
        for mask, own in zip((positive, ~positive), pair, strict=True):
            order = np.argsort(scores.patient[rows[mask]], kind="stable")
            parts.append((scores.patient[rows[mask]][order], _Moving(own.first[order], own.passed, own.always)))
    if not runs:
        return None
    strata = scores.strata
    squares, sums = np.zeros(len(grid)), np.zeros((len(scores.classes), len(grid)))
    for begin in range(0, len(strata), PATIENTS_AT_ONCE):
        count = min(PATIENTS_AT_ONCE, len(strata) - begin)
        moved = np.zeros((count, len(grid)))
        for patient, own in parts:
            inside = slice(*np.searchsorted(patient, (begin, begin + count)))
            cell = (patient[inside] - begin) * (len(grid) + 1) + own.first[inside]
            above = np.bincount(cell, minlength=count * (len(grid) + 1)).reshape(count, -1).cumsum(axis=1)
            moved += own.passed * above[:, :-1] + own.always * above[:, -1:]
        squares += (moved**2).sum(axis=0)
        np.add.at(sums, strata[begin : begin + count], moved)
    sizes = np.bincount(strata, minlength=len(sums))
    present = sizes > 0
    variance = squares - (sums[present] ** 2 / sizes[present, None]).sum(axis=0)
    half = reach(scores.patients) * np.sqrt(np.maximum(variance, 0.0)) / runs
    # At an extreme score, of the rest's highest image or of the class's lowest, there is no derivative.
    half[0] = max(half[0], half[1])
    if value[-1] < 1:
        half[-1] = max(half[-1], half[-2])
    return Band(grid, np.clip(value - half, 0.0, 1.0), np.clip(value + half, 0.0, 1.0))


def _slope(curve: FloatArray, x: FloatArray, images: float) -> FloatArray:
    """The slope of a curve at each point, over as few neighbours as it rises by `STEADY` of so many images within."""
    places = np.arange(len(x))
    slope = np.zeros(len(x))
    for reached in _REACHES:
        low, high = np.maximum(places - reached, 0), np.minimum(places + reached, len(x) - 1)
        rise = curve[high] - curve[low]
        enough = (rise * images >= STEADY) | (reached == _REACHES[0])
        slope = np.where(enough, rise / (x[high] - x[low]), slope)
    return slope


def _roc_influence(ranking: Ranking, positive: NDArray[np.bool_], grid: FloatArray) -> tuple[_Moving, _Moving]:
    """Of the sensitivity at a false positive rate: a change of the rate moves the threshold along the curve."""
    found, false = ranking.reached()
    first = np.searchsorted(grid, false / false.max() - 1e-12)
    rate = ranking.sensitivities(np.ones((len(positive), 1)), grid)[:, 0]
    positives, negatives = found.max(), false.max()
    rise = _slope(rate, grid, positives)
    ones = np.ones(len(grid)) / positives
    return (
        _Moving(first[positive], ones, -rate * ones),
        _Moving(first[~positive], -rise / negatives, rise * grid / negatives),
    )


def _precision_influence(ranking: Ranking, positive: NDArray[np.bool_], grid: FloatArray) -> tuple[_Moving, _Moving]:
    """Of the precision at a recall, which stays the same: so a change of the recall moves the threshold."""
    found, _ = ranking.reached()
    first = np.searchsorted(grid, found / found.max() - 1e-12)
    hits = grid * found.max()
    precision = ranking.precisions(np.ones((len(positive), 1)), grid)[:, 0]
    misses = hits / np.maximum(precision, 1e-12) - hits
    rise = _slope(misses, hits, 1.0)
    total = (hits + misses) ** 2
    return (
        _Moving(first[positive], hits * rise / total, (grid * misses - grid * hits * rise) / total),
        _Moving(first[~positive], -hits / total, np.zeros(len(grid))),
    )
