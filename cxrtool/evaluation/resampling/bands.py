"""Bands around ROC and precision-recall curves: intervals at each point, from the resamples of the areas below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, mean_defined
from cxrtool.evaluation.metrics.estimates import CELLS_AT_ONCE, FEWEST_AT_ONCE
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling.intervals import RESAMPLES, UNDEFINED_SHARE, draw_patients, percents
from cxrtool.evaluation.scores import Scores

GRID = np.linspace(0.0, 1.0, 201)
"""False positive rates, or recalls, at which there is an interval."""

MOST_CELLS = 40_000_000
"""Rows times resamples; with more rows fewer resamples, as the band is then hardly wider than the curve."""

FEWEST = 200


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

    Patients are resampled as for every other interval. An interval holds for its own false positive rate, or recall;
    the whole curve is inside the band less often than in 95 % of samples. A resample has fewer distinct images than the
    sample, so that in small runs its curve starts too high: the interval is moved back by the median difference.

    Returns:
        None where more than 5 % of the resamples have no curve, or all have the same one.
    """
    rows = [np.flatnonzero(scores.run == run) for run in range(len(scores.runs))]
    rankings = [
        (scores.patient[own], Ranking.of(scores.probabilities[own, k], scores.truth[own] == k))
        for own in rows
        if len(own)
    ]
    resamples = min(resamples, max(FEWEST, MOST_CELLS // len(scores)))
    drawn = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    step = max(FEWEST_AT_ONCE, CELLS_AT_ONCE // max(len(own) for own in rows))
    parts = [_curves(rankings, drawn[:, begin : begin + step].astype(float)) for begin in range(0, resamples, step)]
    roc, precision = (np.concatenate(curves, axis=1) for curves in zip(*parts, strict=True))
    values = _curves(rankings, np.ones((scores.patients, 1)))
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
