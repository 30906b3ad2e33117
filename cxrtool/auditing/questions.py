"""The questions of an audit that needs no pixels: is the label associated with a factor, or with whether it is known?

Each question is tested on one row per patient and label. Its level depends on effect size and certainty together: with
many patients even a small difference is certain, with few a large one may be chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.auditing.association import (
    PERMUTATIONS,
    Categorical,
    Numerical,
    benjamini_hochberg,
    categorical,
    numerical,
)
from cxrtool.auditing.factors import CATEGORY, MANIFEST, NAMING, NUMBER, Factor, factors
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import IntArray

CERTAIN = 0.01
"""q (Benjamini & Hochberg) below which an association counts as more than chance."""

SEPARATING_V, SEPARATING_AUC = 0.8, 0.9
"""From here a factor alone has "outstanding" discrimination (Hosmer & Lemeshow 2000, section 5.2.4: AUC 0.9); for two
equal classes and two levels an AUC of 0.9 is a V of 0.8."""

LARGE_W, SMALL_W = 0.5, 0.1
"""Cohen (1988, section 7.2): large and small w; V is w / sqrt(min(levels, classes) - 1)."""

LARGE_SMD, SMALL_SMD = 0.8, 0.1
"""Cohen (1988, section 2.2): large d; Austin (2009): an imbalance from 0.1."""

PRESENCE = ("mask",)
"""Columns that are only tested for whether they are filled."""

VALUE, MISSING = "value", "missing"
KNOWN, ABSENT = "known", "missing"


@dataclass(frozen=True)
class Units:
    """What counts as one observation: a patient with a label, or an image where no patient is known.

    Attributes:
        classes: Labels, sorted.
        labels: (units,) index of each in `classes`.
        unit: (rows,) index of the unit of each labelled row.
        rows: The labelled rows.
        by_patient: Whether patients are known.
    """

    classes: tuple[str, ...]
    labels: IntArray
    unit: IntArray
    rows: tuple[Row, ...]
    by_patient: bool

    @property
    def noun(self) -> str:
        """The name of one unit in sentences."""
        return "patient" if self.by_patient else "image"

    def totals(self) -> list[int]:
        """Units of each class."""
        return [int((self.labels == k).sum()) for k in range(len(self.classes))]


@dataclass(frozen=True)
class Question:
    """One question and its answer.

    Attributes:
        factor: The factor that is tested.
        about: `VALUE`, or `MISSING`: whether it is known.
        answer: The association.
        values: (units,) the factor's value for each unit, empty where missing.
        q: Its p after Benjamini and Hochberg over all questions; None where there is none.
        level: One of `part.LEVELS`.
    """

    factor: Factor
    about: str
    answer: Categorical | Numerical
    values: tuple[str, ...]
    q: float | None = None
    level: str = CLEAR

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.factor.name if self.about == VALUE else f"{self.factor.name} missing"

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Its entry in the content of the part."""
        entry: dict[str, Any] = {"name": self.name, "origin": self.factor.origin, "about": self.about}
        answer = self.answer
        if isinstance(answer, Categorical):
            entry |= {"statistic": "cramers_v", "v": answer.v, "v_corrected": answer.corrected}
            entry["counts"] = {
                level: dict(zip(classes, map(int, row), strict=True))
                for level, row in zip(answer.levels, answer.table, strict=True)
            }
        else:
            between = [classes[k] for k in answer.pair] if answer.pair else None
            entry |= {"statistic": "smd", "smd": answer.smd, "smd_interval": answer.smd_interval, "auc": answer.auc}
            entry |= {"auc_interval": answer.auc_interval, "between": between}
        return entry | {"p": answer.p, "q": self.q, "level": self.level, "reason": answer.reason or None}


def units_of(rows: Sequence[Row]) -> Units:
    """One unit per patient and label, without rows that have no label."""
    labelled = [row for row in rows if row.get("label")]
    classes = sorted({row["label"] for row in labelled})
    keys = list(zip(group_images(labelled), (row["label"] for row in labelled), strict=True))
    numbers = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([classes.index(label) for _, label in numbers], np.intp)
    unit = np.array([numbers[key] for key in keys], np.intp)
    return Units(tuple(classes), labels, unit, tuple(labelled), any(row.get("patient_id") for row in labelled))


def ask(units: Units, *, seed: int, permutations: int = PERMUTATIONS) -> list[Question]:
    """Test all factors of units with two or more classes."""
    found = []
    for factor in factors(units.rows):
        values = per_unit(factor, units)
        found.append(_question(factor, VALUE, values, units, seed, permutations))
        if factor.origin == MANIFEST and "" in values and any(values):
            found.append(_question(factor, MISSING, values, units, seed, permutations))
    for name in PRESENCE:
        values = per_unit(Factor(name, CATEGORY, tuple(row.get(name, "") for row in units.rows)), units)
        if "" in values and any(values):
            found.append(_question(Factor(name, CATEGORY, ()), MISSING, values, units, seed, permutations))
    adjusted = benjamini_hochberg([question.answer.p for question in found])
    return [_judged(question, q) for question, q in zip(found, adjusted, strict=True)]


def per_unit(factor: Factor, units: Units) -> tuple[str, ...]:
    """The value of each unit: for a category the most common known value of its images, for a number their mean."""
    collected: list[list[str]] = [[] for _ in units.labels]
    for unit, value in zip(units.unit, factor.values, strict=True):
        if value:
            collected[unit].append(value)
    if factor.kind == NUMBER:
        return tuple(f"{sum(map(float, known)) / len(known):.10g}" if known else "" for known in collected)
    return tuple(Counter(known).most_common(1)[0][0] if known else "" for known in collected)


def associate(
    values: Sequence[str], kind: str, about: str, labels: IntArray, classes: int, *, seed: int, permutations: int
) -> Categorical | Numerical:
    """The association of a factor, or of whether it is known, with labels."""
    rng = np.random.default_rng(seed)
    if about == MISSING:
        return categorical([KNOWN if value else ABSENT for value in values], labels, classes, rng, permutations)
    known: NDArray[np.bool_] = np.array([bool(value) for value in values], np.bool_)
    filled = [value for value in values if value]
    if kind == NUMBER:
        return numerical(np.array(filled, np.float64), labels[known], classes, rng, permutations)
    return categorical(filled, labels[known], classes, rng, permutations)


def level_of(answer: Categorical | Numerical, *, visible: bool = True) -> str:
    """The level of an association by its effect size alone.

    Args:
        answer: The association.
        visible: Whether it can be an alarm: an image can show a size, a hospital and an age, but no missing cell.
    """
    if isinstance(answer, Categorical):
        if answer.corrected is None:
            return UNKNOWN
        scale = max(1, min(answer.table.shape[0], int((answer.table.sum(axis=0) > 0).sum())) - 1) ** 0.5
        strength, marks = answer.corrected, (SEPARATING_V, LARGE_W / scale, SMALL_W / scale)
    else:
        if answer.auc is None:
            return UNKNOWN
        if abs(answer.auc - 0.5) >= SEPARATING_AUC - 0.5 - 1e-12:
            return ALARM if visible else WARNING
        # Without variance within the classes there is no SMD, and the AUC is 0, 0.5 or 1.
        strength, marks = abs(answer.smd or 0.0), (float("inf"), LARGE_SMD, SMALL_SMD)
    if strength >= marks[0] and visible:
        return ALARM
    return WARNING if strength >= marks[1] else NOTE if strength >= marks[2] else CLEAR


def _question(
    factor: Factor, about: str, values: tuple[str, ...], units: Units, seed: int, permutations: int
) -> Question:
    # A separate seed, so that a further column does not change the other answers.
    own = int.from_bytes(hashlib.blake2b(f"{seed} {factor.name} {about}".encode(), digest_size=7).digest(), "big")
    answer = associate(
        values, factor.kind, about, units.labels, len(units.classes), seed=own, permutations=permutations
    )
    return Question(factor, about, answer, values)


def _judged(question: Question, q: float | None) -> Question:
    visible = question.about == VALUE and question.factor.origin != NAMING
    level = level_of(question.answer, visible=visible)
    constant = level == UNKNOWN and "" not in question.values
    if constant or (level != UNKNOWN and (q is None or q >= CERTAIN)):
        level = CLEAR
    return replace(question, q=q, level=level)


def counts_by_class(values: Sequence[str], units: Units) -> Mapping[str, Counter[str]]:
    """Units of each class with each value; the empty value counts those where it is missing."""
    result: dict[str, Counter[str]] = {name: Counter() for name in units.classes}
    for value, label in zip(values, units.labels, strict=True):
        result[units.classes[label]][value] += 1
    return result
