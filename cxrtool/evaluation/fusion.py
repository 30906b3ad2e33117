"""Fuse what several networks, or one network of several versions of an image, say of it: arrays in, arrays out.

Two binary networks that complement each other (de Moura et al. 2020, whose paper names their joint response and defines
no probability for it: the two rules here are ours), and the twins of COVID-SDNet (Tabik et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import InputError
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide

NORMAL, PATHOLOGICAL, COVID = range(3)
"""The columns of a joint response."""

_DECIMALS = 12
"""What differs less is a tie: decimals of a table, such as 0.3 and 0.7, add up to 1 only nearly."""


def conflict_mass(a: FloatArray, b: FloatArray) -> FloatArray:
    """Probability of the answer that makes no sense: normal and yet covid, were the two networks independent.

    Args:
        a: (n,) probability of pathological or covid, from network A.
        b: (n,) probability of covid, from network B.

    Returns:
        (n,) in [0, 1].

    >>> conflict_mass(np.array([0.2]), np.array([0.5])).item()
    0.4
    """
    return (1 - a) * b


def is_conflict(a: FloatArray, b: FloatArray) -> NDArray[np.bool_]:
    """Whether A decides for normal and B for covid; a probability of one half is a yes to both.

    >>> is_conflict(np.array([0.2, 0.5]), np.array([0.5, 0.5])).tolist()
    [True, False]
    """
    conflict: NDArray[np.bool_] = (a < 0.5) & (b >= 0.5)
    return conflict


def joint_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """As if the networks were independent, without the mass of conflict: (1-a)(1-b), a(1-b), ab, scaled to one.

    It is no calibrated probability, because the networks are not independent.

    Args:
        a: (n,) probability of pathological or covid.
        b: (n,) probability of covid.

    Returns:
        (n, 3) of normal, pathological, covid. Where nothing but conflict is left (a = 0, b = 1), (1/2, 0, 1/2).

    >>> joint_product(np.array([0.5, 0.0]), np.array([0.5, 1.0])).round(3).tolist()
    [[0.333, 0.333, 0.333], [0.5, 0.0, 0.5]]
    """
    terms = np.stack([(1 - a) * (1 - b), a * (1 - b), a * b], axis=-1)
    total = terms.sum(axis=-1, keepdims=True)
    return np.where(total > 0, divide(terms, total), [0.5, 0.0, 0.5])


def joint_nested(a: FloatArray, b: FloatArray) -> FloatArray:
    """Covid as a part of pathological: 1-a, a-b, b; where b > a, which cannot be, both become their mean.

    Args:
        a: (n,) probability of pathological or covid.
        b: (n,) probability of covid.

    Returns:
        (n, 3) of normal, pathological, covid.

    >>> joint_nested(np.array([0.75, 0.25]), np.array([0.5, 0.5])).tolist()
    [[0.25, 0.25, 0.5], [0.625, 0.0, 0.375]]
    """
    mean = (a + b) / 2
    outer, inner = np.where(b > a, mean, a), np.where(b > a, mean, b)
    return np.stack([1 - outer, outer - inner, inner], axis=-1)


RULES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {"product": joint_product, "nested": joint_nested}
"""How two probabilities become three."""


def joint_decision(a: FloatArray, b: FloatArray, rule: str) -> IntArray:
    """The class that a rule finds likeliest; among equals the graver one.

    Under `product` this is the paper's table where the networks agree (A normal, B no: normal; A pathological, B no:
    pathological; A pathological, B covid: covid). On conflict both rules say covid where a + b >= 1, else normal. Under
    `nested` off conflict the table does not hold: a = 0.8, b = 0.45 is covid there.

    Args:
        a: (n,) probability of pathological or covid.
        b: (n,) probability of covid.
        rule: A name of `RULES`.

    Returns:
        (n,) `NORMAL`, `PATHOLOGICAL` or `COVID`.

    >>> joint_decision(np.array([0.1, 0.9, 0.9, 0.3]), np.array([0.1, 0.1, 0.9, 0.7]), "product").tolist()
    [0, 1, 2, 2]
    """
    if rule == "product":
        # By comparisons, not by argmax: where little but conflict is left, rounding would decide.
        on_conflict = np.where(np.round(a + b, _DECIMALS) >= 1, COVID, NORMAL)
        agreed = np.where(a < 0.5, NORMAL, np.where(b < 0.5, PATHOLOGICAL, COVID))
        return np.where(is_conflict(a, b), on_conflict, agreed).astype(np.intp)
    reversed_ = np.round(RULES[rule](a, b), _DECIMALS)[:, ::-1]
    decision: IntArray = (COVID - reversed_.argmax(axis=1)).astype(np.intp)
    return decision


def prior_correct(b: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
    """Undo the prior of a balanced training set: the odds of b times (p/(1-p)) / (q/(1-q)).

    Args:
        b: (n,) probability of a network that was trained where the class had the share q.
        p: (n,) share of the class where it is asked, over 0 and below 1.
        q: (n,) share of the class where it was trained, over 0 and below 1.

    Returns:
        (n,) in [0, 1]; 0 and 1 stay.

    >>> prior_correct(np.array([0.5, 1.0]), np.array([0.25, 0.25]), np.array([0.5, 0.5])).tolist()
    [0.25, 1.0]
    """
    for_it, against = b * p * (1 - q), (1 - b) * (1 - p) * q
    return divide(for_it, for_it + against)


def twins(probabilities: FloatArray, label: Sequence[int], labels: int, positive: int) -> tuple[FloatArray, IntArray]:
    """Fuse what a network says of the twins of an image (COVID-SDNet).

    The score of a label is the highest probability that any twin gives to any of the label's classes, whichever
    generator made the twin. With two labels P and N an image is N where the score of N is the greater, else P, and the
    probability of P is mP / (mP + mN): the paper's rules, of which the two for agreeing twins are special cases of the
    third. With more labels, ours: the greatest score wins, a tie goes to the positive label where it is among the
    greatest, else to the first of them.

    Args:
        probabilities: (n, T, C) of n images, T twins and C classes.
        label: (C,) the label of each class.
        labels: Number of labels K.
        positive: The label that ties go to.

    Returns:
        (n, K) scores scaled to add up to one, and (n,) the labels decided for.

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
