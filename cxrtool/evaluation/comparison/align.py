"""Aligns two runs on the same test images, or gives the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.views import RowView
from cxrtool.evaluation.metrics.confusion import IntArray
from cxrtool.evaluation.scores import Scores, originals_of
from cxrtool.evaluation.tables import count_of

Key = tuple[str, str, str]
"""Repeat, fold and image id."""


def in_order(scores: Scores, classes: Sequence[str]) -> Scores:
    """The same scores with their classes in the order of `classes`; unchanged if the classes differ."""
    if tuple(classes) == scores.classes or set(classes) != set(scores.classes):
        return scores
    columns = [scores.classes.index(name) for name in classes]
    new_index = np.argsort(columns).astype(np.intp)
    return replace(
        scores,
        classes=tuple(classes),
        truth=new_index[scores.truth],
        predicted=new_index[scores.predicted],
        probabilities=scores.probabilities[:, columns],
    )


def key_of(row: RowView) -> Key:
    """Repeat, fold and image id of one row; for a derived image, the id of its radiograph."""
    return row.get("repeat") or "0", row.get("fold") or "0", original_of(row)


@dataclass(frozen=True)
class Alignment:
    """Two runs on their common images.

    Attributes:
        first: Rows of the first run, None where they cannot be compared.
        second: The same rows of the second run.
        differs: One line on missing images; empty where both have the same images.
        reason: Why they cannot be compared.
        whole: Whether no row was excluded and no patient renumbered, so that earlier estimates of each still hold.
    """

    first: Scores | None = None
    second: Scores | None = None
    differs: str = ""
    reason: str = ""
    whole: bool = False


def align(
    first: Scores, second: Scores, names: tuple[str, str], seen: tuple[Collection[Key], Collection[Key]] = ((), ())
) -> Alignment:
    """Bring two runs to the same rows in the same order; refuse if their splits differ.

    Images that only one run has are excluded if the other images are in the same repeat and fold of both: then it is
    one split with missing predictions. If one run tests an image that the other was fitted or validated on (`seen`,
    where known), or tests it in another fold, the splits differ.
    """
    if first.classes != second.classes:
        return Alignment(
            reason=f"other classes: {', '.join(first.classes)} of {names[0]}, {', '.join(second.classes)} of {names[1]}"
        )
    codes = _Codes()
    ours, theirs = codes.of(first), codes.of(second)
    for tested, others, who in ((ours, seen[1], names[1]), (theirs, seen[0], names[0])):
        taken = {key[2] for key in codes.among(others, tested)}
        if taken:
            what = f"{who} was trained on {count_of(len(taken), 'test image')} of the other, such as {min(taken)}"
            return Alignment(reason=f"not the same split: {what}")
    moved = _moved(codes, first, second)
    if moved:
        what = f"{count_of(len(moved), 'image')} tested in different folds, such as {min(moved)}"
        return Alignment(reason=f"not the same split: {what}")
    a = np.flatnonzero(np.isin(ours, theirs))
    if not len(a):
        return Alignment(reason="not the same split: no test image in a common repeat and fold")
    b = _positions(theirs, ours[a])
    if (first.truth[a] != second.truth[b]).any():
        wrong = int(np.flatnonzero(first.truth[a] != second.truth[b])[0])
        sides = zip((first, second), (a, b), names, strict=True)
        labels = (f"{scores.classes[scores.truth[rows][wrong]]} in {name}" for scores, rows, name in sides)
        return Alignment(reason=f"other labels: {key_of(first.rows[int(a[wrong])])[2]} is {', '.join(labels)}")
    known, other = (second, b) if second.by_patient and not first.by_patient else (first, a)
    if first.by_patient and second.by_patient:
        pairs = len(np.unique(first.patient[a] * len(second) + second.patient[b]))
        if pairs != len(np.unique(first.patient[a])) or pairs != len(np.unique(second.patient[b])):
            return Alignment(reason=f"other patients: {names[0]} and {names[1]} group the images differently")
    patient = known.patient[other]
    one, two = (_take(scores, rows, patient, known.by_patient) for scores, rows in ((first, a), (second, b)))
    lacking = [
        f"{name} lacks {count_of(len(missing), 'test prediction')}, such as "
        f"{_shown(min(key_of(scores.rows[int(i)]) for i in missing))}"
        for name, scores, missing in (
            (names[1], first, np.setdiff1d(np.arange(len(first)), a)),
            (names[0], second, np.setdiff1d(np.arange(len(second)), b)),
        )
        if len(missing)
    ]
    differs = f"{'; '.join(lacking)}: compared on the {len(one)} predictions that both have" if lacking else ""
    same = all(
        len(rows) == len(scores) and bool((patient == scores.patient[rows]).all())
        for scores, rows in ((first, a), (second, b))
    )
    return Alignment(one, two, differs, whole=same)


def _shown(key: Key) -> str:
    return f"{key[2]} in r{key[0]}f{key[1]}"


class _Codes:
    """A number for each repeat, fold and image of two runs, which takes a tenth of the memory of the texts."""

    def __init__(self) -> None:
        self.images: dict[str, int] = {}
        self.runs: dict[tuple[str, str], int] = {}

    def image_of(self, scores: Scores) -> IntArray:
        """(n,) the code of the radiograph of each row."""
        names = originals_of(scores.rows)
        return np.fromiter((self.images.setdefault(name, len(self.images)) for name in names), np.intp, len(names))

    def of(self, scores: Scores) -> IntArray:
        """(n,) the code of the key of each row."""
        pairs = [(repeat or "0", fold or "0") for repeat, fold in scores.runs]
        runs = np.array([self.runs.setdefault(pair, len(self.runs)) for pair in pairs], np.intp)
        return runs[scores.run] + _MOST_RUNS * self.image_of(scores)

    def among(self, keys: Collection[Key], tested: IntArray) -> list[Key]:
        """Those of the keys that are tested."""
        known = [key for key in keys if key[:2] in self.runs and key[2] in self.images]
        codes = [self.runs[key[0], key[1]] + _MOST_RUNS * self.images[key[2]] for key in known]
        return [key for key, found in zip(known, np.isin(codes, tested).tolist(), strict=True) if found]


_MOST_RUNS = 1 << 20


def _positions(codes: IntArray, wanted: IntArray) -> IntArray:
    """The index in `codes` of each wanted code, all of which are there."""
    order = np.argsort(codes, kind="stable")
    return order[np.searchsorted(codes[order], wanted)]


def _moved(codes: _Codes, first: Scores, second: Scores) -> set[str]:
    """Images that the two test in different folds of the same repeat."""
    repeats: dict[str, int] = {}
    places, folds = [], []
    for scores in (first, second):
        pairs = [(repeat or "0", fold or "0") for repeat, fold in scores.runs]
        own = np.array([repeats.setdefault(repeat, len(repeats)) for repeat, _ in pairs], np.intp)
        places.append(own[scores.run] + _MOST_RUNS * codes.image_of(scores))
        folds.append(np.array([codes.runs[pair] for pair in pairs], np.intp)[scores.run])
    both = np.flatnonzero(np.isin(places[1], places[0]))
    apart = both[folds[0][_positions(places[0], places[1][both])] != folds[1][both]]
    return {key_of(second.rows[int(i)])[2] for i in apart}


def _take(scores: Scores, rows: IntArray, patient: IntArray, by_patient: bool) -> Scores:
    if np.array_equal(rows, np.arange(len(scores))) and np.array_equal(patient, scores.patient):
        return replace(scores, by_patient=by_patient, notes=())
    runs = sorted(set(scores.run[rows].tolist()))
    dense = {run: i for i, run in enumerate(runs)}
    return replace(
        scores,
        truth=scores.truth[rows],
        predicted=scores.predicted[rows],
        probabilities=scores.probabilities[rows],
        image=np.unique(scores.image[rows], return_inverse=True)[1].astype(np.intp),
        patient=np.unique(patient, return_inverse=True)[1].astype(np.intp),
        run=np.array([dense[run] for run in scores.run[rows].tolist()], np.intp),
        runs=tuple(scores.runs[run] for run in runs),
        rows=scores.rows.take(rows.tolist()),
        by_patient=by_patient,
        notes=(),
    )
