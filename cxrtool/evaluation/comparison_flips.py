"""The permutation test of two models on the same patients: exchange their answers, patient by patient, and look again.

If it does not matter which of the two models has answered for a patient, then every way of exchanging them gives a
difference as likely as the one that was seen. Decisions are exchanged as they are. Scores of different models share no
scale: for areas under curves each model's scores are first replaced by their midranks among the images of the run
(Venkatraman & Begg 1996; Bandos, Rockette & Gur 2005), and the ranks are exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation import metrics
from cxrtool.evaluation.comparison import Verdict, midranks
from cxrtool.evaluation.estimates import Figures, derive
from cxrtool.evaluation.metrics import FloatArray, IntArray, divide
from cxrtool.evaluation.scores import Scores

PERMUTATIONS = 10_000
CELLS_AT_ONCE = 2_000_000

DECIDED = (
    "accuracy", "balanced_accuracy", "macro_sensitivity", "macro_specificity", "macro_precision", "macro_f1", "mcc",
    "sensitivity", "specificity", "precision", "npv", "f1",
)  # fmt: skip
RANKED = ("macro_auc", "average_precision", "auc")
OF_A_CLASS = ("sensitivity", "specificity", "precision", "npv", "f1", "auc")
"""Metrics that need a positive class."""

METRICS = (*DECIDED, *RANKED)
"""All that models can be compared by."""

Bools = NDArray[np.bool_]


def pick(figures: Figures, metric: str, about: int | None) -> FloatArray:
    """One metric of a level of estimates; of the class `about` where it is a metric of a class."""
    values = figures[metric]
    return values[..., about] if metric in OF_A_CLASS else values


@dataclass(frozen=True)
class Pair:
    """Two models' answers about the same images, row by row.

    Attributes:
        first: The one.
        second: The other: same images, patients and runs in the same order.
        metric: One of `METRICS`.
        about: Index of the positive class, where there is one.
        defined: The classes that macro averages are over, by the metric of the class that they average.
    """

    first: Scores
    second: Scores
    metric: str
    about: int | None
    defined: dict[str, Bools]


def sign_flip(pair: Pair, *, seed: int = 0, permutations: int = PERMUTATIONS) -> Verdict:
    """The patient-level sign-flip permutation test of the difference first - second.

    Where so few patients tell the models apart that all exchanges can be had, all are taken and p is exact; else as
    many are drawn as asked for, and the one that was seen counts as one of them. An exchange in which the metric is
    undefined counts as one at least as extreme.
    """
    turner = _Decisions(pair) if pair.metric in DECIDED else _Ranks(pair)
    observed = float(turner(np.ones((1, pair.first.patients), np.bool_))[0])
    active = np.flatnonzero(turner.differing)
    if not len(active):
        return Verdict(1.0, 0.0, observed, reason="the two say the same of every image")
    exact = 2 ** min(len(active), 60) <= permutations
    count = 2 ** len(active) if exact else permutations
    extreme = 0
    for flips in _flips(active, pair.first.patients, count, exact, seed, turner.cells):
        difference = turner(flips)
        # Rounding must not keep the arrangement that was seen from being as extreme as itself.
        extreme += int((~(np.abs(difference) < abs(observed) - 1e-12)).sum())
    p = extreme / count if exact else (1 + extreme) / (1 + count)
    detail = (("patients_differing", len(active)), ("permutations", count), ("exact", float(exact)))
    return Verdict(p, observed, observed, detail=detail)


def _flips(active: IntArray, patients: int, count: int, exact: bool, seed: int, cells: int) -> Iterator[Bools]:
    """Parts of (count, P): True leaves a patient as he is, False exchanges the models."""
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

    def __call__(self, flips: Bools) -> FloatArray:
        one, other = self.tallies
        # What goes to the one leaves the other: the sum of the two stays.
        moved = ((one - other) @ flips.T.astype(np.float64)).transpose(0, 2, 1)
        first = other.sum(axis=2)[:, None, :] + moved
        second = one.sum(axis=2)[:, None, :] - moved
        return self._figure(first) - self._figure(second)

    def _figure(self, cells: FloatArray) -> FloatArray:
        k = len(self.pair.first.classes)
        confusion = cells.reshape(*cells.shape[:2], k, k)
        level = {
            **metrics.class_metrics(confusion),
            "accuracy": metrics.accuracy(confusion),
            "mcc": metrics.matthews(confusion),
        }
        level = {name: metrics.mean_defined(values) for name, values in level.items()}
        return pick(derive(level, self.pair.defined, self.pair.about), self.pair.metric, self.pair.about)


class _Ranks:
    """Areas under curves, computed inside each run from midranks, averaged over the runs where they are defined."""

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
            found = [
                histogram_areas(np.where(kept, one[k], other[k]), truth == k) for k in range(len(one))
            ]  # (auc, average precision) of each class
            areas.append(np.array(found).transpose(1, 2, 0))
        auc, precision = (metrics.mean_defined(np.stack(part)) for part in zip(*areas, strict=True))
        values, source = (precision, "class_ap") if self.pair.metric == "average_precision" else (auc, "auc")
        if self.pair.about is not None and self.pair.metric != "macro_auc":
            one_class: FloatArray = values[:, self.pair.about]
            return one_class
        return metrics.macro(values, self.pair.defined[source])


def histogram_areas(values: IntArray, positive: Bools) -> tuple[FloatArray, FloatArray]:
    """Area under the ROC curve and average precision of many scorings at once, for scores that are small whole numbers.

    Args:
        values: (B, n) scores of B scorings, from 0.
        positive: (n,) whether the image is of the class.

    Returns:
        Two (B,) arrays, ties counted as in `cxrtool.evaluation.ranking`; NaN where the class, or the rest, is absent.

    >>> auc, _ = histogram_areas(np.array([[3, 1, 2], [1, 2, 1]]), np.array([True, False, False]))
    >>> auc.tolist()
    [1.0, 0.25]
    """
    many, width = len(values), int(values.max(initial=0)) + 1
    places = values + width * np.arange(many)[:, None]
    hits, misses = (
        np.bincount(places[:, mask].ravel(), minlength=many * width).reshape(many, width)[:, ::-1].astype(np.float64)
        for mask in (positive, ~positive)
    )
    found, false = hits.cumsum(axis=1), misses.cumsum(axis=1)
    positives, negatives = found[:, -1], false[:, -1]
    pairs = (hits * (negatives[:, None] - false + 0.5 * misses)).sum(axis=1)
    called = found + false
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return (
        divide(pairs, positives * negatives),
        divide((hits * precision).sum(axis=1), np.where(negatives > 0, positives, 0.0)),
    )
