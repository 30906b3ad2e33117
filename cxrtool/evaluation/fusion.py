"""Rules that fuse the predictions of several networks, or of one network for several versions of an image.

The joint response of two binary networks (de Moura et al. 2020; the paper defines no probability for it, both rules
here are ours), and the twins of COVID-SDNet (Tabik et al. 2020). The functions take and return arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import InputError
from cxrtool.evaluation.fusion_rules import RULES
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide

NORMAL, PATHOLOGICAL, COVID = range(3)
"""The columns of a joint response."""

_DECIMALS = 12
"""Smaller differences are ties: decimals of a table, such as 0.3 and 0.7, sum to 1 only approximately."""


def conflict_mass(a: FloatArray, b: FloatArray) -> FloatArray:
    """Probability (n,) of the contradiction "normal, and covid" if the networks were independent.

    Args:
        a: (n,) probability of pathological or covid, from network A.
        b: (n,) probability of covid, from network B.

    >>> conflict_mass(np.array([0.2]), np.array([0.5])).item()
    0.4
    """
    return (1 - a) * b


def is_conflict(a: FloatArray, b: FloatArray) -> NDArray[np.bool_]:
    """Whether A predicts normal (a < 0.5) and B covid (b >= 0.5).

    >>> is_conflict(np.array([0.2, 0.5]), np.array([0.5, 0.5])).tolist()
    [True, False]
    """
    conflict: NDArray[np.bool_] = (a < 0.5) & (b >= 0.5)
    return conflict


def joint_decision(a: FloatArray, b: FloatArray, rule: str) -> IntArray:
    """The most probable class (n,) under a rule; a tie goes to the more severe class.

    Outside conflicts `product` gives the table of the paper (A normal, B rest: normal; A pathological, B rest:
    pathological; A pathological, B covid: covid). In a conflict both rules give covid where a + b >= 1, otherwise
    normal. Outside conflicts `nested` can differ from the table: a = 0.8, b = 0.45 is covid.

    >>> joint_decision(np.array([0.1, 0.9, 0.9, 0.3]), np.array([0.1, 0.1, 0.9, 0.7]), "product").tolist()
    [0, 1, 2, 2]
    """
    if rule == "product":
        # Comparisons instead of argmax: where almost only conflict is left, rounding would decide.
        on_conflict = np.where(np.round(a + b, _DECIMALS) >= 1, COVID, NORMAL)
        agreed = np.where(a < 0.5, NORMAL, np.where(b < 0.5, PATHOLOGICAL, COVID))
        return np.where(is_conflict(a, b), on_conflict, agreed).astype(np.intp)
    reversed_ = np.round(RULES[rule](a, b), _DECIMALS)[:, ::-1]
    decision: IntArray = (COVID - reversed_.argmax(axis=1)).astype(np.intp)
    return decision


def prior_correct(b: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
    """Undo the prior of a balanced training set: the odds of b times (p/(1-p)) / (q/(1-q)).

    Args:
        b: (n,) probability of the class in [0, 1]; 0 and 1 do not change.
        p: (n,) prevalence of the class in the images to predict, in (0, 1).
        q: (n,) prevalence of the class in the training images of the network, in (0, 1).

    >>> prior_correct(np.array([0.5, 1.0]), np.array([0.25, 0.25]), np.array([0.5, 0.5])).tolist()
    [0.25, 1.0]
    """
    for_it, against = b * p * (1 - q), (1 - b) * (1 - p) * q
    return divide(for_it, for_it + against)


def twins(probabilities: FloatArray, label: Sequence[int], labels: int, positive: int) -> tuple[FloatArray, IntArray]:
    """Fuse the predictions of a network for the twins of an image (COVID-SDNet).

    The score of a label is the highest probability of any of its classes for any twin, whichever generator made the
    twin. With two labels P and N an image is N where the score of N is higher, otherwise P, and the probability of P is
    mP / (mP + mN). These are the rules of the paper, where the two for agreeing twins are special cases of the third.
    Our rule for more labels: the highest score wins; a tie goes to the positive label if it is among the highest,
    otherwise to the first of them.

    Args:
        probabilities: (n, T, C) of n images, T twins and C classes.
        label: (C,) label of each class.
        labels: Number of labels K.
        positive: Label that ties go to.

    Returns:
        (n, K) scores scaled to sum 1, and (n,) predicted labels.

    >>> scores, decided = twins(np.array([[[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.5, 0.3]]]), [0, 0, 1, 1], 2, 0)
    >>> scores.tolist(), decided.tolist()
    ([[0.5, 0.5]], [0])
    """
    own = np.asarray(label)
    if set(own.tolist()) != set(range(labels)):
        raise InputError(f"expected classes of all {labels} labels, found those of {len(set(own.tolist()))}")
    highest = np.stack([probabilities[:, :, own == k].max(axis=(1, 2)) for k in range(labels)], axis=-1)
    decided = highest.argmax(axis=1)
    decided = np.where(highest[:, positive] == highest.max(axis=1), positive, decided).astype(np.intp)
    return divide(highest, highest.sum(axis=1, keepdims=True)), decided
