"""Predictions as arrays, checked: the one thing that every number of an evaluation is computed from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import INCONCLUSIVE, Predictions
from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

TEST = "test"
TOLERANCE = 0.0051
"""How far from 1 the probabilities of an image may add up, for each class: some tables are rounded to two digits."""

UNDECIDED = -1
"""In place of a class, where none was decided for: never equal to the true one."""

_SHOWN = 3


@dataclass(frozen=True)
class Scores:
    """Labelled predictions of one or many runs.

    Attributes:
        classes: Class names, K of them.
        truth: (n,) true class of each row.
        predicted: (n,) class that it was called, or `UNDECIDED`.
        probabilities: (n, K) in [0, 1].
        image: (n,) index of the image; an image has one row a repeat.
        patient: (n,) index of the patient, 0 to P-1, in the order of their sorted names.
        run: (n,) index into `runs`.
        runs: (repeat, fold) of each run, in numeric order.
        rows: The text columns of each row, for groups.
        by_patient: Whether patients are known; else every image stands for a patient of its own.
        notes: What was left out or assumed, in plain words.
    """

    classes: tuple[str, ...]
    truth: IntArray
    predicted: IntArray
    probabilities: FloatArray
    image: IntArray
    patient: IntArray
    run: IntArray
    runs: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    by_patient: bool = True
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """(n,) whether a class was decided for."""
        decided: NDArray[np.bool_] = self.predicted != UNDECIDED
        return decided

    @property
    def images(self) -> int:
        """Number of distinct images."""
        return len(np.unique(self.image))

    @property
    def patients(self) -> int:
        """Number of distinct patients."""
        return len(np.unique(self.patient))

    @property
    def repeat_of_run(self) -> IntArray:
        """(runs,) index of the repeat that each run belongs to."""
        repeats = list(dict.fromkeys(repeat for repeat, _ in self.runs))
        return np.array([repeats.index(repeat) for repeat, _ in self.runs], np.intp)

    @property
    def strata(self) -> IntArray:
        """(P,) the commonest label of each patient, the first class among equals: what resampling keeps constant."""
        counts = np.zeros((self.patients, len(self.classes)))
        np.add.at(counts, (self.patient, self.truth), 1.0)
        commonest: IntArray = counts.argmax(axis=1).astype(np.intp)
        return commonest

    def where(self, mask: NDArray[np.bool_]) -> Scores:
        """The rows of a group, as scores of their own with the same runs."""
        kept = np.flatnonzero(mask)
        return replace(
            self,
            truth=self.truth[kept],
            predicted=self.predicted[kept],
            probabilities=self.probabilities[kept],
            image=_dense(self.image[kept]),
            patient=_dense(self.patient[kept]),
            run=self.run[kept],
            rows=tuple(self.rows[i] for i in kept),
            notes=(),
        )


def scores_of(
    predictions: Predictions, *, subset: str = TEST, classes: Sequence[str] = (), abstaining: bool = False
) -> Scores:
    """Check predictions and turn them into arrays.

    Args:
        predictions: One or many runs.
        subset: Only rows of this subset; where no row is marked as test, all rows are taken.
        classes: Only images of these classes, and only their probabilities, scaled to add up to one; a row that was
            called another class is called the likeliest of these.
        abstaining: Take rows that were called inconclusive; who asks must know what to do with `UNDECIDED`.

    Raises:
        InputError: There is nothing to evaluate, a class is unknown, probabilities do not add up to one, or an image
            is predicted twice within a repeat.
        UsageError: `classes` names one that was not predicted.
    """
    notes: list[str] = []
    name = predictions.name or "predictions"
    known = list(predictions.classes)
    if len(known) < 2:
        raise InputError(f"{name}: expected prob_ columns of two classes or more, found {', '.join(known) or 'none'}")
    kept = _of_subset(predictions.rows, subset, name, notes)
    kept = _labelled(predictions.rows, kept, name, notes)
    rows = [predictions.rows[i] for i in kept]
    probabilities = np.asarray(predictions.probabilities, np.float64)[kept]
    _check_sums(rows, probabilities, name)
    called = _called(rows, probabilities, known, name, notes, abstaining)
    if classes:
        chosen, rows, probabilities, called = _restrict(rows, probabilities, called, known, classes, name, notes)
    else:
        chosen = known
    _check_labels(rows, chosen, name)
    truth = np.array([chosen.index(row["label"]) for row in rows], np.intp)
    if subset == TEST:
        _check_once(rows, name)
    image_ids = [original_of(row) for row in rows]
    patient_ids, by_patient = _patients(rows, notes)
    pairs = [(row.get("repeat", ""), row.get("fold", "")) for row in rows]
    runs = sorted(set(pairs), key=_numeric)
    place = {pair: i for i, pair in enumerate(runs)}
    warned = sum(1 for row in rows if row.get("warning"))
    if warned:
        notes.append(f"{warned} of {len(rows)} predictions carry a warning (column `warning`).")
    return Scores(
        tuple(chosen),
        truth,
        called,
        probabilities,
        _indices(image_ids),
        _indices(patient_ids),
        np.array([place[pair] for pair in pairs], np.intp),
        tuple(runs),
        tuple(rows),
        by_patient,
        tuple(notes),
    )


def _of_subset(rows: Sequence[Row], subset: str, name: str, notes: list[str]) -> list[int]:
    marks = [row.get("subset", "") for row in rows]
    kept = [i for i, mark in enumerate(marks) if mark == subset]
    if kept:
        return kept
    found = ", ".join(f"{mark or '(empty)'} {count}" for mark, count in Counter(marks).items())
    if subset != TEST:
        raise InputError(f"{name}: expected rows with subset '{subset}', found: {found or 'no rows at all'}")
    if any(marks):
        notes.append(f"No row is marked as test; all rows are used ({found}).")
    return list(range(len(rows)))


def _labelled(rows: Sequence[Row], kept: list[int], name: str, notes: list[str]) -> list[int]:
    labelled = [i for i in kept if rows[i].get("label")]
    if not labelled:
        raise InputError(
            f"{name}: expected labelled images, found {len(kept)} rows without a label",
            "an evaluation needs the column `label`; predict on a manifest that has it",
        )
    if len(labelled) < len(kept):
        notes.append(f"Rows without a label, left out: {len(kept) - len(labelled)}.")
    return labelled


def _check_sums(rows: Sequence[Row], probabilities: FloatArray, name: str) -> None:
    inside: NDArray[np.bool_] = (probabilities >= 0) & (probabilities <= 1)
    valid: NDArray[np.bool_] = np.all(inside, axis=1)
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(~valid | ~(np.abs(sums - 1) <= TOLERANCE * probabilities.shape[1]))
    if len(wrong):
        found = f"{sums[wrong[0]]:.4g}" if valid[wrong[0]] else "one that is no number in [0, 1]"
        raise InputError(
            f"{name}: expected probabilities in [0, 1] that add up to 1, found {found} for {_ids(rows, wrong)}",
            "the prob_ columns must be one set of exclusive classes, not independent scores",
        )


def _called(
    rows: Sequence[Row],
    probabilities: FloatArray,
    known: list[str],
    name: str,
    notes: list[str],
    abstaining: bool,
) -> IntArray:
    names = [row.get("predicted", "") for row in rows]
    place = {label: i for i, label in enumerate(known)}
    if abstaining:
        place.setdefault(INCONCLUSIVE, UNDECIDED)
    strange = [i for i, called in enumerate(names) if called and called not in place]
    if strange:
        raise InputError(
            f"{name}: expected a predicted class among {', '.join(known)}, found '{names[strange[0]]}' for "
            f"{_ids(rows, strange)}",
            "only `cxrtool evaluate` takes abstentions; with --on-conflict prob, `fuse joint` decides for every image"
            if INCONCLUSIVE in names
            else None,
        )
    likeliest = probabilities.argmax(axis=1)
    missing = sum(1 for called in names if not called)
    if missing:
        notes.append(f"{missing} rows have no `predicted`; the class of highest probability is taken.")
    decided = np.array([place[called] if called else likeliest[i] for i, called in enumerate(names)], np.intp)
    if undecided := int((decided == UNDECIDED).sum()):
        notes.append(
            f"{undecided} of {len(rows)} predictions are inconclusive: accuracy, sensitivity and what else is made of "
            f"decisions is of the others; AUC, Brier score and calibration are of all."
        )
    return decided


def _restrict(
    rows: list[Row],
    probabilities: FloatArray,
    called: IntArray,
    known: list[str],
    classes: Sequence[str],
    name: str,
    notes: list[str],
) -> tuple[list[str], list[Row], FloatArray, IntArray]:
    strange = [wanted for wanted in classes if wanted not in known]
    if strange or len(set(classes)) < 2:
        found = f"found '{strange[0]}'" if strange else "found fewer"
        raise UsageError(f"--classes: expected two or more of {', '.join(known)}, {found}")
    chosen = list(dict.fromkeys(classes))
    columns = [known.index(wanted) for wanted in chosen]
    kept = [i for i, row in enumerate(rows) if row["label"] in chosen]
    if not kept:
        raise InputError(f"{name}: expected images of {', '.join(chosen)}, found none")
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} rows of other classes are left out.")
    part = probabilities[np.ix_(kept, columns)]
    total = part.sum(axis=1, keepdims=True)
    empty = int((total == 0).sum())
    if empty:
        notes.append(f"{empty} rows give none of {', '.join(chosen)} any probability; these count as equally likely.")
    part = np.divide(part, total, out=np.full_like(part, 1 / len(chosen)), where=total > 0)
    place = {column: i for i, column in enumerate(columns)} | {UNDECIDED: UNDECIDED}
    likeliest = part.argmax(axis=1)
    decided = np.array([place.get(called[i], likeliest[j]) for j, i in enumerate(kept)], np.intp)
    moved = sum(1 for i in kept if called[i] not in place)
    if moved:
        notes.append(f"{moved} rows were called another class; the likeliest of {', '.join(chosen)} is taken.")
    return chosen, [rows[i] for i in kept], part, decided


def _check_labels(rows: Sequence[Row], classes: list[str], name: str) -> None:
    strange = Counter(row["label"] for row in rows if row["label"] not in classes)
    if strange:
        found = ", ".join(f"{label} ({count} rows)" for label, count in sorted(strange.items()))
        raise InputError(
            f"{name}: expected labels among {', '.join(classes)}, found {found}",
            "rename them with `cxrtool select --relabel`, or leave them out with --classes",
        )


def _check_once(rows: Sequence[Row], name: str) -> None:
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.get("repeat", ""), original_of(row))
        fold = row.get("fold", "")
        if key in seen:
            repeat = f"repeat {key[0]}" if key[0] else "the one repeat"
            raise InputError(
                f"{name}: expected one prediction an image in {repeat}, found image '{key[1]}' twice "
                f"(folds '{seen[key]}' and '{fold}')",
                "several files with the same repeat are set side by side as first=A.csv second=B.csv",
            )
        seen[key] = fold


def _patients(rows: Sequence[Row], notes: list[str]) -> tuple[list[str], bool]:
    known = [row.get("patient_id", "") for row in rows]
    if not any(known):
        notes.append("No patient is named: every image counts as a patient, so intervals may be too narrow.")
        return [original_of(row) for row in rows], False
    nameless = {original_of(row) for row in rows if not row.get("patient_id")}
    if nameless:
        notes.append(f"{len(nameless)} images name no patient; each counts as a patient of its own.")
    # The mark keeps an image's name from being taken for a patient's.
    named = zip(known, rows, strict=True)
    return [f"p:{patient}" if patient else f"i:{original_of(row)}" for patient, row in named], True


def _indices(names: Sequence[str]) -> IntArray:
    return np.unique(np.array(names, dtype=object), return_inverse=True)[1].astype(np.intp)


def _dense(indices: IntArray) -> IntArray:
    return np.unique(indices, return_inverse=True)[1].astype(np.intp)


def _numeric(pair: tuple[str, str]) -> tuple[tuple[bool, str], ...]:
    return tuple((not part.isdigit(), part.zfill(9)) for part in pair)


def _ids(rows: Sequence[Row], indices: Sequence[int] | IntArray) -> str:
    shown = [rows[i].get("image_id", "") for i in indices[:_SHOWN]]
    more = len(indices) - len(shown)
    return f"image {', '.join(shown)}" + (f" and {more} more" if more else "")
