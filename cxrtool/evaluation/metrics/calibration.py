"""Calibration of predicted probabilities: expected calibration error, Brier score, slope and intercept.

Everything is computed within one run, with weights, an (images, resamples) array, for resampling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide

MAX_BINS = 15
IMAGES_PER_BIN = 20
LABEL_DRAWS = 200
CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logit is taken: float32 softmax rounds to both."""

_ROWS_AT_ONCE = 4096
_STEPS = 30
_CONVERGED = 1e-6
_SEPARATED = 50.0


def top_label(probabilities: FloatArray, truth: IntArray) -> tuple[FloatArray, FloatArray]:
    """The highest probability of each image, and 1.0 where its class is the true one.

    Args:
        probabilities: (n, K).
        truth: (n,) class indices.

    >>> confidence, hit = top_label(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    >>> confidence.tolist(), hit.tolist()
    ([0.9, 0.6], [1.0, 0.0])
    """
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == truth).astype(np.float64)


def bin_count(images: int) -> int:
    """The number of bins for n images: min(15, n / 20), at least one.

    >>> bin_count(67), bin_count(1000), bin_count(5)
    (3, 15, 1)
    """
    return max(1, min(MAX_BINS, images // IMAGES_PER_BIN))


def equal_mass_bins(confidence: FloatArray, count: int | None = None) -> IntArray:
    """Bins of equal mass; equal confidences share a bin, whatever the order of the rows.

    Args:
        confidence: (n,).
        count: Number of bins; by default `bin_count(n)`.

    Returns:
        (n,) bin of each image, rising with confidence; some bins may be empty where many confidences tie.

    >>> equal_mass_bins(np.linspace(0.5, 1.0, 40)).tolist() == [0] * 20 + [1] * 20
    True
    """
    n = len(confidence)
    bins = count or bin_count(n)
    before = np.searchsorted(np.sort(confidence), confidence, side="left")
    return (before * bins // max(n, 1)).astype(np.intp)


def calibration_error(gaps: FloatArray, total: FloatArray) -> FloatArray:
    """Expected calibration error of the top label: mean gap between confidence and accuracy, weighted by bin mass.

    Guo et al. (2017), "On Calibration of Modern Neural Networks", with bins of equal mass. The bins are those of the
    whole run, in resamples too.

    Args:
        gaps: (bins, B) sums of hit - confidence in each bin.
        total: (B,) weights of all images.

    Returns:
        (B,) errors in [0, 1]; NaN where all weights are 0.
    """
    return divide(np.abs(gaps).sum(axis=0), total)


def error_if_calibrated(
    confidence: FloatArray, bins: IntArray, rng: np.random.Generator, draws: int = LABEL_DRAWS
) -> float:
    """The calibration error that a perfectly calibrated model would have on as many images.

    Labels are drawn from the predicted probabilities; the error that remains is the noise of a finite sample.
    """
    index = np.unique(bins, return_inverse=True)[1]
    gaps = np.zeros((int(index.max()) + 1, draws))
    for begin in range(0, len(confidence), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        expected = confidence[rows, None]
        gap = (rng.random((len(expected), draws)) < expected) - expected
        order = np.argsort(index[rows], kind="stable")
        present, starts = np.unique(index[rows][order], return_index=True)
        gaps[present] += np.add.reduceat(gap[order], starts, axis=0)
    return float(calibration_error(gaps, np.full(draws, float(len(confidence)))).mean())


def brier_terms(probabilities: FloatArray, truth: IntArray) -> FloatArray:
    """The terms (n,) of the Brier score: squared errors summed over the classes, or of one of two classes.

    They are in [0, 2], for two classes in [0, 1].

    >>> brier_terms(np.array([[0.8, 0.2]]), np.array([0])).round(2).tolist()
    [0.04]
    """
    error = probabilities - np.eye(probabilities.shape[1])[truth]
    terms: FloatArray = (error[:, -1:] ** 2 if probabilities.shape[1] == 2 else error**2).sum(axis=1)
    return terms


def logit(probability: FloatArray) -> FloatArray:
    """Log odds, with the probability kept `CLIP` away from 0 and 1."""
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    odds: FloatArray = np.log(clipped / (1 - clipped))
    return odds


def slope(
    log_odds: FloatArray, positive: NDArray[np.bool_], weights: FloatArray, start: tuple[float, float] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Calibration slope: b in logit P(y = 1) = a + b x, fitted by maximum likelihood (Cox 1958).

    1 is perfect; below 1 the probabilities are too extreme.

    Args:
        log_odds: (n,) x, from `logit`.
        positive: (n,) y.
        weights: (n, B).
        start: (a, b) of the first step; near the solution a few steps are enough.

    Returns:
        Slope and constant, (B,) each; NaN where no finite solution exists: one class only, or scores that separate the
        classes without overlap.
    """
    x, count = log_odds[:, None], weights.shape[1]
    powers = np.stack([np.ones(len(log_odds)), log_odds, log_odds**2])
    observed = (powers[:2] * positive) @ weights
    a = np.full(count, start[0] if start else 0.0)
    b = np.full(count, start[1] if start else 0.0)
    active = np.arange(count)
    done = np.zeros(count, bool)
    for _ in range(_STEPS):
        w = weights[:, active] if len(active) < count else weights
        mu = _expit(a[active] + b[active] * x)
        expected = w * mu
        g0, g1 = observed[:, active] - powers[:2] @ expected
        expected *= 1 - mu
        h00, h01, h11 = powers @ expected
        determinant = h00 * h11 - h01 * h01
        step_a = divide(h11 * g0 - h01 * g1, determinant)
        step_b = divide(h00 * g1 - h01 * g0, determinant)
        # Far from the solution a Newton step may overshoot; bounded steps converge.
        size = np.maximum(1.0, np.maximum(np.abs(step_a), np.abs(step_b)) / 4.0)
        a[active] += step_a / size
        b[active] += step_b / size
        settled = np.maximum(np.abs(step_a), np.abs(step_b)) < _CONVERGED
        lost = ~(np.abs(b[active]) < _SEPARATED) | ~(determinant > 1e-9)
        done[active[settled & ~lost]] = True
        active = active[~settled & ~lost]
        if not len(active):
            break
    return np.where(done, b, np.nan), np.where(done, a, np.nan)


def intercept(log_odds: FloatArray, positive: NDArray[np.bool_], weights: FloatArray, start: float = 0.0) -> FloatArray:
    """Calibration in the large: a in logit P(y = 1) = a + x, the slope being held at 1.

    0 is perfect; below 0 the probabilities are too high on average.

    Args:
        log_odds: (n,) x, from `logit`.
        positive: (n,) y.
        weights: (n, B).
        start: a of the first step.

    Returns:
        (B,); NaN where only one class is present.
    """
    x, y = log_odds[:, None], positive.astype(np.float64)
    one = np.ones(len(y))
    observed = y @ weights
    both = (observed > 0) & ((1 - y) @ weights > 0)
    a = np.full(weights.shape[1], start)
    for _ in range(_STEPS):
        mu = _expit(a + x)
        expected = weights * mu
        missing = observed - one @ expected
        expected *= 1 - mu
        step = divide(missing, one @ expected)
        step = np.clip(np.nan_to_num(step), -2.0, 2.0)
        a = a + step
        if np.abs(step[both]).max(initial=0.0) < _CONVERGED:
            break
    return np.where(both, a, np.nan)


def fit_influence(
    log_odds: FloatArray, positive: NDArray[np.bool_], slope: float, constant: float, shift: float
) -> tuple[FloatArray, FloatArray]:
    """How much each image moves slope and intercept: its score times the inverse information (White 1982, "sandwich").

    Args:
        log_odds: (n,) x, from `logit`.
        positive: (n,) y.
        slope: b of `slope`.
        constant: a of `slope`.
        shift: a of `intercept`.

    Returns:
        Two (n,) arrays with sum 0; NaN where there is no fit.
    """
    mu = _expit(constant + slope * log_odds)
    curvature = mu * (1 - mu)
    h00, h01, h11 = curvature.sum(), curvature @ log_odds, curvature @ log_odds**2
    of_slope = (positive - mu) * (h00 * log_odds - h01) / (h00 * h11 - h01 * h01)
    mu = _expit(shift + log_odds)
    return of_slope, (positive - mu) / (mu * (1 - mu)).sum()


def _expit(x: FloatArray) -> FloatArray:
    # tanh does not overflow and needs no second branch.
    probability: FloatArray = np.tanh(0.5 * x)
    probability += 1.0
    probability *= 0.5
    return probability
