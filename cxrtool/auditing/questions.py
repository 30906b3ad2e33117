"""The questions of an audit that needs no pixels: does the label hang on this factor, or on whether it is known?

Each question is asked of one row a patient and label. Its gravity is that of its size and of its certainty together:
with many patients the faintest difference is certain, with few a large one is chance.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""q (Benjamini & Hochberg) below which an association is taken for more than chance."""

TELLING_V, TELLING_AUC = 0.8, 0.9
"""From here a factor alone tells the classes "outstandingly" (Hosmer & Lemeshow 2000, section 5.2.4: AUC 0.9); for two
equal classes and two levels an AUC of 0.9 is a V of 0.8."""

LARGE_W, SMALL_W = 0.5, 0.1
"""Cohen (1988, section 7.2): large and small w; V is w / sqrt(min(levels, classes) - 1)."""

LARGE_SMD, SMALL_SMD = 0.8, 0.1
"""Cohen (1988, section 2.2): large d; Austin (2009): an imbalance from 0.1."""

PRESENCE = ("mask",)
"""Columns of which nothing but whether they are filled is asked."""

VALUE, MISSING = "value", "missing"
KNOWN, ABSENT = "known", "missing"


@dataclass(frozen=True)
class Units:
    """What counts as one observation: a patient with a label, or an image where no patient is known.

    Attributes:
        classes: Labels, sorted.
        labels: (units,) place of each in `classes`.
        unit: (rows,) unit of each labelled row.
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
        """What to call one of them."""
        return "patient" if self.by_patient else "image"

    def totals(self) -> list[int]:
        """Units of each class."""
        return [int((self.labels == k).sum()) for k in range(len(self.classes))]


@dataclass(frozen=True)
class Question:
    """One question and its answer.

    Attributes:
        factor: What it is about.
        about: `VALUE`, or `MISSING`: whether it is known.
        answer: The association.
        values: (units,) the factor's value of each unit, empty where missing.
        q: Its p after Benjamini and Hochberg over all questions; None where there is none.
        level: How grave it is: one of `part.LEVELS`.
    """

    factor: Factor
    about: str
    answer: Categorical | Numerical
    values: tuple[str, ...]
    q: float | None = None
    level: str = CLEAR

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.factor.name if self.about == VALUE else f"{self.factor.name} missing"

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Its entry in the content of the part."""
        entry: dict[str, Any] = {"name": self.name, "origin": self.factor.origin, "about": self.about}
        answer = self.answer
        if isinstance(answer, Categorical):
            entry |= {"statistic": "cramers_v", "v": answer.v, "v_corrected": answer.corrected}
            shares = {level: dict(zip(classes, map(int, row), strict=True))
                      for level, row in zip(answer.levels, answer.table, strict=True)}  # fmt: skip
            entry["counts"] = shares
        else:
            between = [classes[k] for k in answer.pair] if answer.pair else None
            entry |= {"statistic": "smd", "smd": answer.smd, "smd_interval": answer.smd_interval, "auc": answer.auc}
            entry |= {"auc_interval": answer.auc_interval, "between": between}
        return entry | {"p": answer.p, "q": self.q, "level": self.level, "reason": answer.reason or None}


def units_of(rows: Sequence[Row]) -> Units:
    """One unit a patient and label; rows without a label are left out."""
    labelled = [row for row in rows if row.get("label")]
    classes = sorted({row["label"] for row in labelled})
    keys = list(zip(group_images(labelled), (row["label"] for row in labelled), strict=True))
    numbers = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    labels = np.array([classes.index(label) for _, label in numbers], np.intp)
    unit = np.array([numbers[key] for key in keys], np.intp)
    return Units(tuple(classes), labels, unit, tuple(labelled), any(row.get("patient_id") for row in labelled))


def ask(units: Units, *, seed: int, permutations: int = PERMUTATIONS) -> list[Question]:
    """Ask all questions that a manifest has an answer to.

    Args:
        units: Of two classes or more.
        seed: Of the permutations and resamples.
        permutations: How many.
    """
    asked = []
    for factor in factors(units.rows):
        values = per_unit(factor, units)
        asked.append(_question(factor, VALUE, values, units, seed, permutations))
        if factor.origin == MANIFEST and "" in values and any(values):
            asked.append(_question(factor, MISSING, values, units, seed, permutations))
    for name in PRESENCE:
        values = per_unit(Factor(name, CATEGORY, tuple(row.get(name, "") for row in units.rows)), units)
        if "" in values and any(values):
            asked.append(_question(Factor(name, CATEGORY, ()), MISSING, values, units, seed, permutations))
    adjusted = benjamini_hochberg([question.answer.p for question in asked])
    return [_judged(question, q) for question, q in zip(asked, adjusted, strict=True)]


def per_unit(factor: Factor, units: Units) -> tuple[str, ...]:
    """The value of each unit: of a category the commonest of its images that is known, of a number their mean."""
    collected: list[list[str]] = [[] for _ in units.labels]
    for place, value in zip(units.unit, factor.values, strict=True):
        if value:
            collected[place].append(value)
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


def gravity(answer: Categorical | Numerical, *, telling: bool = True) -> str:
    """How grave an association is by its size alone.

    Args:
        answer: The association.
        telling: Whether it can be an alarm: a picture has a size, a hospital and an age, but no missing cell.
    """
    if isinstance(answer, Categorical):
        if answer.corrected is None:
            return UNKNOWN
        scale = max(1, min(answer.table.shape[0], int((answer.table.sum(axis=0) > 0).sum())) - 1) ** 0.5
        strength, marks = answer.corrected, (TELLING_V, LARGE_W / scale, SMALL_W / scale)
    else:
        if answer.auc is None:
            return UNKNOWN
        if abs(answer.auc - 0.5) >= TELLING_AUC - 0.5 - 1e-12:
            return ALARM if telling else WARNING
        # Without variance within the classes there is no SMD, and the AUC is 0 or 1 or half of one.
        strength, marks = abs(answer.smd or 0.0), (float("inf"), LARGE_SMD, SMALL_SMD)
    if strength >= marks[0] and telling:
        return ALARM
    return WARNING if strength >= marks[1] else NOTE if strength >= marks[2] else CLEAR


def _question(
    factor: Factor, about: str, values: tuple[str, ...], units: Units, seed: int, permutations: int
) -> Question:
    # A seed of its own, so that a further column leaves the other answers as they are.
    own = int.from_bytes(hashlib.blake2b(f"{seed} {factor.name} {about}".encode(), digest_size=7).digest(), "big")
    answer = associate(
        values, factor.kind, about, units.labels, len(units.classes), seed=own, permutations=permutations
    )
    return Question(factor, about, answer, values)


def _judged(question: Question, q: float | None) -> Question:
    telling = question.about == VALUE and question.factor.origin != NAMING
    level = gravity(question.answer, telling=telling)
    constant = level == UNKNOWN and "" not in question.values
    if constant or (level != UNKNOWN and (q is None or q >= CERTAIN)):
        level = CLEAR
    return Question(question.factor, question.about, question.answer, question.values, q, level)


def counts_by_class(values: Sequence[str], units: Units) -> Mapping[str, Counter[str]]:
    """How often each value stands in each class, in units; the empty one is what is missing."""
    result: dict[str, Counter[str]] = {name: Counter() for name in units.classes}
    for value, label in zip(values, units.labels, strict=True):
        result[units.classes[label]][value] += 1
    return result
