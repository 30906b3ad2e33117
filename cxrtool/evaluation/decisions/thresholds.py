"""The threshold for a given sensitivity, from order statistics of the positive validation scores.

The threshold is the k-th lowest of n positive scores, k = floor((n + 1)(1 - s)). A further positive image of the same
kind is below it with a probability of at most k / (n + 1) <= 1 - s, whatever the distribution of the scores (Wilks
1941, "Determination of sample sizes for setting tolerance limits", the basis of split conformal prediction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cxrtool.errors import InputError
from cxrtool.evaluation.decisions.validation import Validation
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.scores import UNDECIDED, Scores
from cxrtool.evaluation.sheet import count_of

USUAL = (0.90, 0.95, 0.99)
"""Sensitivities for which a model folder keeps a threshold."""

_ROUND = 9


@dataclass(frozen=True)
class Threshold:
    """A score from which an image is predicted positive.

    Attributes:
        value: In [0, 1], or None.
        rank: Rank of the threshold among the positive scores, the lowest being 1.
        positives: Number of positive validation images.
        reason: Why there is no threshold.
    """

    value: float | None
    rank: int
    positives: int
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry in `metrics.json` and in `model.json`."""
        # Not rounded: a saturated network has scores of 1e-20, and above the threshold the positive itself is lost.
        value = None if self.value is None else float(self.value)
        return {"threshold": value, "rank": self.rank, "positives": self.positives, "reason": self.reason}


def rank_of(positives: int, sensitivity: float) -> int:
    """The rank of the positive score that keeps a sensitivity: floor((n + 1)(1 - s)); 0 where none does.

    >>> rank_of(19, 0.95), rank_of(18, 0.95), rank_of(9, 0.9), rank_of(99, 0.9)
    (1, 0, 1, 10)
    """
    # 1 - 0.9 is slightly below 0.1; without rounding, floor would lose one.
    return math.floor(round((positives + 1) * (1 - sensitivity), _ROUND))


def needed(sensitivity: float) -> int:
    """The number of positive images that a sensitivity needs.

    >>> needed(0.9), needed(0.95), needed(0.99)
    (9, 19, 99)
    """
    return math.ceil(round(1 / (1 - sensitivity), _ROUND)) - 1


def threshold(positive_scores: FloatArray, sensitivity: float) -> Threshold:
    """The highest threshold that new positive images reach with a probability of at least `sensitivity`, in (0, 1).

    >>> threshold(np.arange(1, 20) / 20, 0.95).value
    0.05
    >>> threshold(np.array([0.5]), 0.95).reason
    '1 positive validation image; 19 are needed'
    """
    n = len(positive_scores)
    rank = rank_of(n, sensitivity)
    if rank < 1:
        few = f"{n or 'no'} positive validation image{'' if n == 1 else 's'}; {needed(sensitivity)} are needed"
        return Threshold(None, 0, n, few)
    return Threshold(float(np.partition(positive_scores, rank - 1)[rank - 1]), rank, n)


def choose(scores: Scores, validation: Validation, positive_index: int, sensitivity: float) -> list[Threshold]:
    """The threshold of every run, from its validation images at the same temperature as `scores`.

    Raises:
        InputError: A run has too few positive validation images.
    """
    found = []
    for run in scores.runs:
        part = validation.of(run)
        own = np.zeros(0) if part is None else part.probabilities[part.truth == positive_index, positive_index]
        found.append(threshold(own, sensitivity))
    lacking = [(run, entry) for run, entry in zip(scores.runs, found, strict=True) if entry.value is None]
    if lacking:
        (repeat, fold), first = lacking[0]
        where = f" in r{repeat or '0'}f{fold or '0'}" if len(scores.runs) > 1 else ""
        others = f", and too few in {count_of(len(lacking) - 1, 'other run')}" if len(lacking) > 1 else ""
        fewest = min(entry.positives for _, entry in lacking)
        name = scores.classes[positive_index]
        raise InputError(
            f"--sensitivity {sensitivity:g}: expected {needed(sensitivity)} validation images of {name} or more, found "
            f"{first.positives}{where}{others}" + (f" ({validation.reason})" if validation.scores is None else ""),
            f"{fewest} allow at most --sensitivity {math.floor(1000 * fewest / (fewest + 1)) / 1000:g}; or use more "
            "validation images: `cxrtool split --validation`"
            if fewest
            else "a run of `cxrtool train` has validation rows; the output of `predict` has none",
        )
    return found


def decide(scores: Scores, positive_index: int, thresholds: Sequence[float]) -> Scores:
    """Predict the positive class from the threshold of the run, otherwise the most probable other class.

    Undecided images stay undecided.
    """
    reached = scores.probabilities[:, positive_index] >= np.asarray(thresholds)[scores.run]
    rest = scores.probabilities.copy()
    rest[:, positive_index] = -1.0
    predicted: IntArray = np.where(reached, positive_index, rest.argmax(axis=1)).astype(np.intp)
    return replace(scores, predicted=np.where(scores.decided, predicted, UNDECIDED).astype(np.intp))
