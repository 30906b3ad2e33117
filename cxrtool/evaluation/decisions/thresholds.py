"""A threshold for a wanted sensitivity, from order statistics of the positive validation scores.

With k the floor((n + 1)(1 - s))-th lowest of n positive scores as threshold, a further positive image of the same kind
lies below it with a probability of at most k / (n + 1), hence at most 1 - s: no assumption about the distribution.
(Wilks 1941, "Determination of sample sizes for setting tolerance limits", on which split conformal prediction rests.)
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
from cxrtool.evaluation.resampling.intervals import DIGITS
from cxrtool.evaluation.scores import UNDECIDED, Scores
from cxrtool.evaluation.sheet import count_of

USUAL = (0.90, 0.95, 0.99)
"""Sensitivities for which a model folder keeps a threshold."""

_ROUND = 9


@dataclass(frozen=True)
class Threshold:
    """A score from which an image is called positive.

    Attributes:
        value: The threshold in [0, 1], or None.
        rank: Which of the lowest positive scores it is, from 1.
        positives: How many positive validation images there were.
        reason: Why there is none.
    """

    value: float | None
    rank: int
    positives: int
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry in `metrics.json` and in `model.json`."""
        value = None if self.value is None else round(self.value, DIGITS)
        return {"threshold": value, "rank": self.rank, "positives": self.positives, "reason": self.reason}


def rank_of(positives: int, sensitivity: float) -> int:
    """Which of the lowest positive scores keeps a sensitivity: floor((n + 1)(1 - s)); 0 where none does.

    >>> rank_of(19, 0.95), rank_of(18, 0.95), rank_of(9, 0.9), rank_of(99, 0.9)
    (1, 0, 1, 10)
    """
    # 1 - 0.9 is a little under 0.1, and what is whole must not be rounded down for that.
    return math.floor(round((positives + 1) * (1 - sensitivity), _ROUND))


def needed(sensitivity: float) -> int:
    """How many positive images a sensitivity takes at least.

    >>> needed(0.9), needed(0.95), needed(0.99)
    (9, 19, 99)
    """
    return math.ceil(round(1 / (1 - sensitivity), _ROUND)) - 1


def threshold(positive_scores: FloatArray, sensitivity: float) -> Threshold:
    """The highest score that may be asked for so that new positive images reach it with a wanted probability.

    Args:
        positive_scores: (n,) scores of the positive validation images.
        sensitivity: In (0, 1).

    >>> threshold(np.arange(1, 20) / 20, 0.95).value
    0.05
    >>> threshold(np.array([0.5]), 0.95).reason
    '1 positive validation image, and 19 are needed'
    """
    n = len(positive_scores)
    rank = rank_of(n, sensitivity)
    if rank < 1:
        told = f"{n or 'no'} positive validation image{'' if n == 1 else 's'}, and {needed(sensitivity)} are needed"
        return Threshold(None, 0, n, told)
    return Threshold(float(np.partition(positive_scores, rank - 1)[rank - 1]), rank, n)


def choose(scores: Scores, validation: Validation, about: int, sensitivity: float) -> list[Threshold]:
    """The threshold of every run, from its own validation part.

    Args:
        scores: What is evaluated, K classes.
        validation: Its validation rows, at the same temperature as `scores`.
        about: The positive class.
        sensitivity: The one that is wanted.

    Raises:
        InputError: A run has too few positive validation images.
    """
    found = []
    for run in scores.runs:
        part = validation.of(run)
        own = np.zeros(0) if part is None else part.probabilities[part.truth == about, about]
        found.append(threshold(own, sensitivity))
    lacking = [(run, entry) for run, entry in zip(scores.runs, found, strict=True) if entry.value is None]
    if lacking:
        (repeat, fold), first = lacking[0]
        where = f" in r{repeat or '0'}f{fold or '0'}" if len(scores.runs) > 1 else ""
        others = f", and too few in {count_of(len(lacking) - 1, 'other run')}" if len(lacking) > 1 else ""
        fewest = min(entry.positives for _, entry in lacking)
        name = scores.classes[about]
        raise InputError(
            f"--sensitivity {sensitivity:g}: expected {needed(sensitivity)} validation images of {name} or more, found "
            f"{first.positives}{where}{others}" + (f" ({validation.reason})" if validation.scores is None else ""),
            f"with {fewest} at most --sensitivity {math.floor(1000 * fewest / (fewest + 1)) / 1000:g} can be had; or "
            "give more images to validation: `cxrtool split --validation`"
            if fewest
            else "a run of `cxrtool train` keeps its validation rows; what `predict` writes has none",
        )
    return found


def decide(scores: Scores, about: int, thresholds: Sequence[float]) -> Scores:
    """Call positive what reaches its run's threshold, and the rest the likeliest of the other classes.

    What was left undecided stays so.

    Args:
        scores: K classes.
        about: The positive class.
        thresholds: One a run.
    """
    reached = scores.probabilities[:, about] >= np.asarray(thresholds)[scores.run]
    rest = scores.probabilities.copy()
    rest[:, about] = -1.0
    called: IntArray = np.where(reached, about, rest.argmax(axis=1)).astype(np.intp)
    return replace(scores, predicted=np.where(scores.decided, called, UNDECIDED).astype(np.intp))
