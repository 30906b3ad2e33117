"""Tests of the difference between two models, and between two methods, each for what it can show and nothing more.

Two questions are kept apart. *Are these two trained models different on such patients?* is answered by exchanging the
models patient by patient (`sign_flip`), and, where one run each has seen one image a patient, by DeLong's test of two
areas and McNemar's of two accuracies. *Is one method better than the other?* needs several trainings, whose test
results hang together because their training images overlap: `corrected_t` allows for that.

All p values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics import FloatArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """What one test says.

    Attributes:
        p: Two-sided, in [0, 1]; None where the test does not apply.
        statistic: Its test statistic.
        difference: The difference that it is about.
        low: Lower end of its 95 % interval, where the test gives one.
        high: Upper end.
        detail: Numbers that belong to it.
        reason: Why there is no p, or what has to be known about it.
    """

    p: float | None = None
    statistic: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    detail: tuple[tuple[str, float], ...] = ()
    reason: str | None = None


def corrected_t(differences: FloatArray, n_test: float, n_train: float) -> Verdict:
    """Corrected resampled t test of Nadeau & Bengio (2003), "Inference for the generalization error", section 3.

    t = mean(d) / sqrt((1/J + n_test/n_train) s²) with J - 1 degrees of freedom. The second term stands for what the
    runs share: their training images. Without it the same images, divided more often, would prove anything.

    Args:
        differences: (J,) metric of the one method minus that of the other in each run.
        n_test: Test images of a run.
        n_train: Images that a run was fitted on.

    >>> round(corrected_t(np.array([0.02, 0.04, 0.01, 0.05]), 20, 80).statistic, 4)
    2.3238
    """
    runs = len(differences)
    if runs < 2:
        return Verdict(reason="one run each: that tells two trained models apart, not two methods")
    if n_train <= 0:
        return Verdict(reason="it is not known how many images were fitted")
    from scipy.special import stdtr, stdtrit

    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    detail = (("runs", runs), ("df", runs - 1), ("n_test", n_test), ("n_train", n_train))
    if spread < 1e-12:
        return Verdict(difference=mean, detail=detail, reason="the difference is the same in every run: no spread")
    error = math.sqrt(1 / runs + n_test / n_train) * spread
    t = mean / error
    p = min(1.0, 2 * float(stdtr(runs - 1, -abs(t))))
    half = float(stdtrit(runs - 1, 0.5 + CONFIDENCE / 2)) * error
    return Verdict(p, t, mean, mean - half, mean + half, detail)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Verdict:
    """McNemar's test (1947) in its exact form: among images that one model alone got right, is it a coin's toss?

    Args:
        first: (n,) whether the one model was right.
        second: (n,) whether the other was; n independent images.

    >>> mcnemar(np.array([True] * 8), np.array([True] * 2 + [False] * 6)).p
    0.03125
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    n = one + other
    detail = (("only_first_right", one), ("only_second_right", other))
    difference = (one - other) / len(first)
    if n == 0:
        return Verdict(1.0, 0.0, difference, detail=detail, reason="both are right about the same images")
    # Whole numbers until the last division: no rounding, however many images.
    tail = sum(math.comb(n, k) for k in range(min(one, other) + 1))
    return Verdict(min(1.0, 2 * tail / 2**n), float(min(one, other)), difference, detail=detail)


def delong(first: FloatArray, second: FloatArray, positive: NDArray[np.bool_]) -> Verdict:
    """DeLong, DeLong & Clarke-Pearson (1988): two correlated areas under the ROC curve, compared without resampling.

    The structural components are had from midranks (Sun & Xu 2014), in n log n instead of all pairs.

    Args:
        first: (n,) scores of the one model; only their order counts.
        second: (n,) scores of the other, on the same independent images.
        positive: (n,) whether the image is of the class.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return Verdict(reason="DeLong needs two images of the class and two others")
    tens, ones, areas = [], [], []
    for score in (first, second):
        everyone = midranks(score)
        tens.append((everyone[positive] - midranks(score[positive])) / n)
        ones.append(1 - (everyone[~positive] - midranks(score[~positive])) / m)
        areas.append(float(tens[-1].mean()))
    difference = areas[0] - areas[1]
    variance = float((tens[0] - tens[1]).var(ddof=1)) / m + float((ones[0] - ones[1]).var(ddof=1)) / n
    detail = (("auc_first", areas[0]), ("auc_second", areas[1]))
    if variance < 1e-18:
        if abs(difference) < 1e-12:
            return Verdict(1.0, 0.0, difference, detail=detail, reason="both rank the images alike")
        return Verdict(difference=difference, detail=detail, reason="the areas differ without any spread")
    z = difference / math.sqrt(variance)
    half = 1.959963984540054 * math.sqrt(variance)
    return Verdict(math.erfc(abs(z) / math.sqrt(2)), z, difference, difference - half, difference + half, detail)


def midranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing the mean of theirs.

    >>> midranks(np.array([0.3, 0.1, 0.3])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    shared: FloatArray = (ends - (counts - 1) / 2)[place]
    return shared


def holm(raw: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down adjustment, which keeps the chance of any false alarm among all at its level.

    Args:
        raw: p values; None, where a test did not apply, is none of the family.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(raw) if p is not None)
    adjusted: list[float | None] = [None] * len(raw)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted
