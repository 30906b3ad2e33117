"""Tests of the difference between two trained models, and between two methods of training.

Two questions are kept apart. *Are these two trained models different?* is answered by exchanging their predictions
patient by patient (`sign_flip`) and, for one run each with one image a patient, by DeLong's test of two areas under the
ROC curve and McNemar's test of two accuracies. *Is one method better than the other?* needs several trainings. Their
test results are correlated because their training images overlap; `corrected_t` allows for that.

All p values are two-sided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.comparison.metrics import METRICS
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide, sums_by
from cxrtool.evaluation.metrics.estimates import RANKINGS, Figures, derive
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.scores import Scores

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """The result of one test.

    Attributes:
        p: Two-sided, in [0, 1]; None where the test does not apply.
        difference: First minus second.
        low: Lower end of its 95 % interval, where the test gives one.
        high: Upper end.
        detail: Further numbers by name.
        reason: Why there is no p, or a caveat.
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

    t = mean(d) / sqrt((1/J + n_test/n_train) s²) with J - 1 degrees of freedom. The second term corrects for the
    training images that the runs share. Without it, more repeats on the same images would make any difference
    significant.

    Args:
        differences: (J,) metric of the first method minus that of the second in each run.
        n_test: Test images of a run.
        n_train: Images that a run was fitted on.

    >>> round(corrected_t(np.array([0.02, 0.04, 0.01, 0.05]), 20, 80).statistic, 4)
    2.3238
    """
    runs = len(differences)
    if runs < 2:
        return Verdict(reason="one run each: this compares two trained models, not two methods")
    if n_train <= 0:
        return Verdict(reason="the number of fitted images is not known")
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
    """McNemar's exact test (1947): of the images that only one model predicted correctly, are both shares one half?

    Args:
        first: (n,) whether the first model is correct.
        second: (n,) whether the second is; n independent images.

    >>> mcnemar(np.array([True] * 8), np.array([True] * 2 + [False] * 6)).p
    0.03125
    """
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    n = one + other
    detail = (("only_first_right", one), ("only_second_right", other))
    difference = (one - other) / len(first)
    if n == 0:
        return Verdict(1.0, 0.0, difference, detail=detail, reason="both are correct for the same images")
    # Integers until the last division: no rounding, however many images.
    tail = term = 1
    for k in range(min(one, other)):
        term = term * (n - k) // (k + 1)
        tail += term
    return Verdict(min(1.0, 2 * tail / 2**n), float(min(one, other)), difference, detail=detail)


def delong(first: FloatArray, second: FloatArray, positive: NDArray[np.bool_]) -> Verdict:
    """DeLong, DeLong & Clarke-Pearson (1988): compares two correlated areas under the ROC curve.

    The structural components are computed from midranks (Sun & Xu 2014), in n log n instead of all pairs.

    Args:
        first: (n,) scores of the first model; only their order matters.
        second: (n,) scores of the second, on the same independent images.
        positive: (n,) whether the image is of the class.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return Verdict(reason="DeLong needs at least two images of the class and two of the rest")
    tens, ones, areas = [], [], []
    for score in (first, second):
        ranks = midranks(score)
        tens.append((ranks[positive] - midranks(score[positive])) / n)
        ones.append(1 - (ranks[~positive] - midranks(score[~positive])) / m)
        areas.append(float(tens[-1].mean()))
    difference = areas[0] - areas[1]
    variance = float((tens[0] - tens[1]).var(ddof=1)) / m + float((ones[0] - ones[1]).var(ddof=1)) / n
    detail = (("auc_first", areas[0]), ("auc_second", areas[1]))
    if variance < 1e-18:
        if abs(difference) < 1e-12:
            return Verdict(1.0, 0.0, difference, detail=detail, reason="both rank the images in the same order")
        return Verdict(difference=difference, detail=detail, reason="the areas differ, but their variance is 0")
    z = difference / math.sqrt(variance)
    half = 1.959963984540054 * math.sqrt(variance)
    return Verdict(math.erfc(abs(z) / math.sqrt(2)), z, difference, difference - half, difference + half, detail)


def midranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values get the mean of their ranks.

    >>> midranks(np.array([0.3, 0.1, 0.3])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    shared: FloatArray = (ends - (counts - 1) / 2)[inverse]
    return shared


def holm(raw: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down adjustment of p values, which controls the family-wise error rate.

    None, where a test did not apply, is not part of the family.

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


PERMUTATIONS = 10_000
CELLS_AT_ONCE = 2_000_000

Bools = NDArray[np.bool_]


def pick(figures: Figures, metric: str, positive_index: int | None) -> FloatArray:
    """One metric of a level of estimates; for a metric of a class, of the positive one."""
    values = figures[metric]
    return values[..., positive_index] if METRICS[metric].of_a_class else values


@dataclass(frozen=True)
class Pair:
    """The predictions of two models for the same images, patients and runs in the same order.

    Attributes:
        metric: A key of `METRICS`.
        defined: The classes that macro averages are over, by the metric of the class that they average.
    """

    first: Scores
    second: Scores
    metric: str
    positive_index: int | None
    defined: dict[str, Bools]


def sign_flip(pair: Pair, *, seed: int = 0, permutations: int = PERMUTATIONS) -> Verdict:
    """The patient-level sign-flip permutation test of the difference first - second.

    If the predictions differ for so few patients that all exchanges can be enumerated, p is exact. Otherwise
    `permutations` exchanges are drawn, and the observed arrangement is counted as one more. An exchange in which the
    metric is undefined counts as at least as extreme.

    Of many patients, exchanges of decisions are drawn for all patients with the same differences at once, which gives
    the same distribution. For a metric of ranks the normal distribution is taken that the sum over the patients has.
    """
    if pair.first.by_influence:
        return _flip_ranks(pair) if METRICS[pair.metric].ranked else _flip_alike(pair, seed, permutations)
    statistic = _Ranks(pair) if METRICS[pair.metric].ranked else _Decisions(pair)
    observed = float(statistic(np.ones((1, pair.first.patients), np.bool_))[0])
    active = np.flatnonzero(statistic.differing)
    if not len(active):
        return Verdict(1.0, 0.0, observed, reason="both models predict the same for every image")
    exact = 2 ** min(len(active), 60) <= permutations
    count = 2 ** len(active) if exact else permutations
    extreme = 0
    for flips in _flips(active, pair.first.patients, count, exact, seed, statistic.cells):
        difference = statistic(flips)
        # The tolerance makes the observed arrangement at least as extreme as itself in spite of rounding.
        extreme += int((~(np.abs(difference) < abs(observed) - 1e-12)).sum())
    p = extreme / count if exact else (1 + extreme) / (1 + count)
    detail = (("patients_differing", len(active)), ("permutations", count), ("exact", float(exact)))
    return Verdict(p, observed, observed, detail=detail)


def _flip_alike(pair: Pair, seed: int, permutations: int) -> Verdict:
    """The test by confusion matrices, in which patients with the same difference of counts are exchangeable."""
    statistic = _Decisions(pair)
    active = np.flatnonzero(statistic.differing)
    observed = float(statistic.difference(np.zeros((1, 0)), np.zeros((0, *statistic.shape[:2])))[0])
    if not len(active):
        return Verdict(1.0, 0.0, observed, reason="both models predict the same for every image")
    one, other = statistic.tallies
    apart = (one - other)[:, :, active].transpose(2, 0, 1)
    kinds, sizes = np.unique(apart.reshape(len(active), -1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    extreme, step = 0, max(1, CELLS_AT_ONCE // len(kinds))
    for begin in range(0, permutations, step):
        exchanged = rng.binomial(sizes, 0.5, (min(step, permutations - begin), len(kinds))).astype(np.float64)
        difference = statistic.difference(exchanged, kinds.reshape(-1, *apart.shape[1:]))
        extreme += int((~(np.abs(difference) < abs(observed) - 1e-12)).sum())
    detail = (("patients_differing", len(active)), ("permutations", permutations), ("exact", 0.0))
    return Verdict((1 + extreme) / (1 + permutations), observed, observed, detail=detail)


def _flip_ranks(pair: Pair) -> Verdict:
    """The test by areas under curves.

    An exchange moves the scores of a patient between the two models. With the sign e = 1 (kept) or -1 (exchanged) of
    each patient the difference of the areas is the sum of e times a number c of the patient: exactly so for the area
    under the ROC curve, and but for terms of third order for average precision, c being twice the difference of the
    derivatives at the scores of both models taken together. So its variance over all exchanges is the sum of c².
    """
    first, second = pair.first, pair.second
    source = "class_ap" if pair.metric == "average_precision" else "auc"
    single = pair.positive_index if pair.metric != "macro_auc" else None
    classes = np.flatnonzero(pair.defined[source]) if single is None else np.array([single])
    weights, observed = np.zeros(first.patients), 0.0
    for k in classes.tolist():
        moved, differences = np.zeros(len(first)), []
        for run in range(len(first.runs)):
            rows = np.flatnonzero(first.run == run)
            positive = first.truth[rows] == k
            if positive.all() or not positive.any():
                continue
            ranks = [midranks(scores.probabilities[rows, k]) for scores in (first, second)]
            areas = [Ranking.of(own, positive).areas(np.ones((len(rows), 1))) for own in ranks]
            at = RANKINGS.index(source)
            differences.append(float(areas[0][at][0] - areas[1][at][0]))
            change = Ranking.of(np.concatenate(ranks), np.tile(positive, 2)).influence()[at]
            moved[rows] = 2 * (change[: len(rows)] - change[len(rows) :])
        if not differences:
            return Verdict(reason=f"no run has images of both {first.classes[k]} and the rest")
        weights += sums_by(first.patient, moved, first.patients) / (len(differences) * len(classes))
        observed += float(np.mean(differences)) / len(classes)
    differing = int(np.count_nonzero(np.abs(weights) > 1e-15))
    if not differing:
        return Verdict(1.0, 0.0, observed, reason="both models predict the same for every image")
    z = observed / math.sqrt(float(weights @ weights))
    detail = (("patients_differing", differing),)
    limit = "p is from the normal distribution of all exchanges, because there are many patients"
    return Verdict(math.erfc(abs(z) / math.sqrt(2)), observed, observed, detail=detail, reason=limit)


def _flips(active: IntArray, patients: int, count: int, exact: bool, seed: int, cells: int) -> Iterator[Bools]:
    """Chunks of (count, P): True keeps the predictions for a patient, False exchanges those of the models."""
    rng = np.random.default_rng(seed)
    step = max(1, CELLS_AT_ONCE // max(cells, 1))
    for begin in range(0, count, step):
        part = min(step, count - begin)
        flips = np.ones((part, patients), np.bool_)
        if exact:
            numbers = np.arange(begin, begin + part)
            flips[:, active] = (numbers[:, None] >> np.arange(len(active))) & 1
        else:
            flips[:, active] = rng.integers(0, 2, (part, len(active)), dtype=np.uint8)
        yield flips


class _Decisions:
    """Metrics of confusion matrices: pooled over the folds of a repeat, averaged over the repeats."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        first, second = pair.first, pair.second
        repeat = first.repeat_of_run[first.run]
        k = len(first.classes)
        shape = (repeat.max() + 1, k * k, first.patients)
        self.tallies = []
        for scores in (first, second):
            tally = np.zeros(shape)
            np.add.at(tally, (repeat, scores.truth * k + scores.predicted, scores.patient), 1.0)
            self.tallies.append(tally)
        self.differing: Bools = (self.tallies[0] != self.tallies[1]).any(axis=(0, 1))
        self.cells = first.patients + 8 * k * k
        self.shape = shape

    def __call__(self, flips: Bools) -> FloatArray:
        one, other = self.tallies
        # The sum of the two stays the same.
        moved = ((one - other) @ flips.T.astype(np.float64)).transpose(0, 2, 1)
        first = other.sum(axis=2)[:, None, :] + moved
        second = one.sum(axis=2)[:, None, :] - moved
        return self._figure(first) - self._figure(second)

    def difference(self, exchanged: FloatArray, kinds: FloatArray) -> FloatArray:
        """First minus second (B,) where so many patients (B, kinds) of each kind of difference are exchanged.

        `kinds` (kinds, repeats, cells) is the first minus the second model's counts of such a patient.
        """
        one, other = (tally.sum(axis=2)[:, None, :] for tally in self.tallies)
        moved = np.tensordot(exchanged, kinds, 1).transpose(1, 0, 2)
        return self._figure(one - moved) - self._figure(other + moved)

    def _figure(self, cells: FloatArray) -> FloatArray:
        k = len(self.pair.first.classes)
        confusion = cells.reshape(*cells.shape[:2], k, k)
        level = {
            **metrics.class_metrics(confusion),
            "accuracy": metrics.accuracy(confusion),
            "mcc": metrics.matthews(confusion),
        }
        level = {name: metrics.mean_defined(values) for name, values in level.items()}
        return pick(
            derive(level, self.pair.defined, self.pair.positive_index), self.pair.metric, self.pair.positive_index
        )


class _Ranks:
    """Areas under curves, computed within each run from midranks, averaged over the runs where they are defined."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        first, second = pair.first, pair.second
        self.runs = []
        self.differing = np.zeros(first.patients, np.bool_)
        for run in range(len(first.runs)):
            rows = np.flatnonzero(first.run == run)
            patient = first.patient[rows]
            # Twice the midrank is a whole number.
            ranks = [
                np.stack([(2 * midranks(s.probabilities[rows, k])).astype(np.intp) for k in range(len(s.classes))])
                for s in (first, second)
            ]
            np.logical_or.at(self.differing, patient, (ranks[0] != ranks[1]).any(axis=0))
            self.runs.append((patient, first.truth[rows], ranks[0], ranks[1]))
        self.cells = 4 * len(first)

    def __call__(self, flips: Bools) -> FloatArray:
        return self._figure(flips) - self._figure(~flips)

    def _figure(self, flips: Bools) -> FloatArray:
        areas = []
        for patient, truth, one, other in self.runs:
            kept = flips[:, patient]
            # (AUC, average precision) of each class.
            found = [histogram_areas(np.where(kept, one[k], other[k]), truth == k) for k in range(len(one))]
            areas.append(np.array(found).transpose(1, 2, 0))
        auc, precision = (metrics.mean_defined(np.stack(part)) for part in zip(*areas, strict=True))
        values, source = (precision, "class_ap") if self.pair.metric == "average_precision" else (auc, "auc")
        if self.pair.positive_index is not None and self.pair.metric != "macro_auc":
            one_class: FloatArray = values[:, self.pair.positive_index]
            return one_class
        return metrics.macro(values, self.pair.defined[source])


def histogram_areas(values: IntArray, positive: Bools) -> tuple[FloatArray, FloatArray]:
    """Area under the ROC curve and average precision of B scorings at once, for scores that are small integers.

    Args:
        values: (B, n) scores, from 0.
        positive: (n,) whether the image is of the class.

    Returns:
        Two (B,) arrays, ties counted as in `evaluation.metrics.ranking`; NaN where the class, or the rest, is absent.

    >>> auc, _ = histogram_areas(np.array([[3, 1, 2], [1, 2, 1]]), np.array([True, False, False]))
    >>> auc.tolist()
    [1.0, 0.25]
    """
    many, width = len(values), int(values.max(initial=0)) + 1
    cells = values + width * np.arange(many)[:, None]
    hits, misses = (
        np.bincount(cells[:, mask].ravel(), minlength=many * width).reshape(many, width)[:, ::-1].astype(np.float64)
        for mask in (positive, ~positive)
    )
    found, false = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = found[:, -1], false[:, -1]
    pairs = (hits * (negatives[:, None] - false + 0.5 * misses)).sum(axis=1)
    predicted = found + false
    precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
    return (
        divide(pairs, positives * negatives),
        divide((hits * precision).sum(axis=1), np.where(negatives > 0, positives, 0.0)),
    )
