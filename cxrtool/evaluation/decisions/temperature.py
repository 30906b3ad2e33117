"""Temperature scaling: one number per run that makes predicted probabilities less, or more, extreme.

Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2: softmax(z / T). Only probabilities are known
here, and softmax(log(p) / T) is the same, because log p and z differ by a constant per image. Unlike in the paper, ln T
has a normal prior of standard deviation 0.5, so that few validation images cannot move T far from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cxrtool.evaluation.decisions.validation import Validation
from cxrtool.evaluation.metrics.calibration import CLIP
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.intervals import DIGITS
from cxrtool.evaluation.scores import Scores

PRIOR_SD = 0.5
"""Of ln T."""

FEWEST = 50
"""Validation images that a temperature needs."""

_REACH = 6.0
_POINTS = 97
_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Temperature:
    """A temperature, or 1 with the reason why none was fitted.

    Attributes:
        value: T > 0; above 1 it makes probabilities less extreme.
        images: Number of validation images.
        reason: Why T is 1.
        nll_before: Mean negative log-likelihood of the validation labels, in nats, at T = 1.
        nll_after: The same at T.
    """

    value: float = 1.0
    images: int = 0
    reason: str | None = None
    nll_before: float | None = None
    nll_after: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry in `metrics.json` and in `model.json`."""
        return {
            "temperature": round(self.value, DIGITS),
            "images": self.images,
            "reason": self.reason,
            "nll_before": None if self.nll_before is None else round(self.nll_before, DIGITS),
            "nll_after": None if self.nll_after is None else round(self.nll_after, DIGITS),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Temperature:
        """The temperature that `as_json` wrote; a model of elsewhere may state it alone."""
        images = entry.get("images")
        return cls(
            float(entry["temperature"]),
            images if isinstance(images, int) else 0,
            entry.get("reason"),
            entry.get("nll_before"),
            entry.get("nll_after"),
        )


def apply(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Probabilities (..., K) at a temperature T > 0: p^(1/T), scaled to sum 1; at 1 they are returned unchanged.

    >>> apply(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    if temperature == 1.0:
        return probabilities
    scaled = _logarithms(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: FloatArray = powers / powers.sum(axis=-1, keepdims=True)
    return result


def fit(probabilities: FloatArray, truth: IntArray) -> Temperature:
    """The temperature that minimises negative log-likelihood + (ln T)^2 / (2 * 0.5^2) on validation images.

    Args:
        probabilities: (n, K) predicted for the validation images.
        truth: (n,) their classes.

    Returns:
        T, or 1 with the reason where there are fewer than `FEWEST` images, or only one class.

    >>> fit(np.full((10, 2), 0.5), np.zeros(10, np.intp)).reason
    'only 10 validation images; 50 are needed'
    """
    n = len(truth)
    if n < FEWEST:
        few = f"only {n} validation image{'' if n == 1 else 's'}; {FEWEST} are needed"
        return Temperature(images=n, reason=few if n else "no validation images")
    if len(np.unique(truth)) < 2:
        return Temperature(images=n, reason=f"all {n} validation images are of one class")
    logarithms = _logarithms(probabilities)
    own = np.arange(n), truth

    def likelihood(u: float) -> float:
        scaled = logarithms * np.exp(-u)
        top = scaled.max(axis=1, keepdims=True)
        return float((top[:, 0] + np.log(np.exp(scaled - top).sum(axis=1)) - scaled[own]).sum())

    u = _minimise(lambda u: likelihood(u) + u * u / (2 * PRIOR_SD**2))
    return Temperature(float(np.exp(u)), n, None, likelihood(0.0) / n, likelihood(u) / n)


def calibrate(scores: Scores, validation: Validation) -> tuple[Scores, list[Temperature]]:
    """Apply to every run the temperature fitted on its validation images; returns one temperature a run.

    Decisions do not change: a temperature does not change which class is the most probable.
    """
    probabilities = scores.probabilities.copy()
    found = []
    for index, run in enumerate(scores.runs):
        part = validation.of(run)
        if part is None:
            reason = validation.reason if validation.scores is None else "this run has no validation rows"
            found.append(Temperature(reason=reason))
            continue
        fitted = fit(part.probabilities, part.truth)
        rows = scores.run == index
        probabilities[rows] = apply(probabilities[rows], fitted.value)
        found.append(fitted)
    return replace(scores, probabilities=probabilities), found


def _logarithms(probabilities: FloatArray) -> FloatArray:
    """Logarithms; a 0 is replaced by at most the smallest other probability, so that no order changes."""
    positive = probabilities[probabilities > 0]
    floor = min(CLIP, float(positive.min())) if len(positive) else CLIP
    logarithms: FloatArray = np.log(np.maximum(probabilities, floor))
    return logarithms


def _minimise(loss: Callable[[float], float]) -> float:
    """The minimum of a loss of ln T: the best of a grid, then golden-section search around it."""
    grid = np.linspace(-_REACH, _REACH, _POINTS)
    best = int(np.argmin([loss(float(u)) for u in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _POINTS - 1)])
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return (low + high) / 2
