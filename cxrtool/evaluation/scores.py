"""Checked predictions as arrays, from which every number of an evaluation is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.splitting.grouping import group_images, identities, original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import INCONCLUSIVE, PROBABILITIES, RANKING, Predictions
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

TEST = "test"
TOLERANCE = 0.0051
"""Allowed difference of the sum of the probabilities from 1, per class: some tables are rounded to two digits."""

UNDECIDED = -1
"""The predicted class of an undecided image: never equal to the true class."""

_SHOWN = 3


@dataclass(frozen=True)
class Scores:
    """Labelled predictions of one or many runs.

    Attributes:
        classes: K names.
        truth: (n,) true class of each row.
        predicted: (n,) predicted class, or `UNDECIDED`.
        probabilities: (n, K) in [0, 1]; of kind `RANKING` only their order in a column has a meaning.
        image: (n,) index of the image; an image has one row a repeat.
        patient: (n,) index of the patient, 0 to P-1, in the order of their sorted names.
        run: (n,) index into `runs`.
        runs: (repeat, fold) of each run, in numeric order.
        rows: The text columns of each row, for groups.
        by_patient: Whether patients are known; otherwise every image counts as a patient.
        notes: Exclusions and assumptions, in words.
        kind: As of `Predictions`.
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
    kind: str = PROBABILITIES

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """(n,) whether a class is predicted."""
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
        """(P,) the most frequent label of each patient (ties: the first class), which resampling keeps constant."""
        counts = np.zeros((self.patients, len(self.classes)))
        np.add.at(counts, (self.patient, self.truth), 1.0)
        commonest: IntArray = counts.argmax(axis=1).astype(np.intp)
        return commonest

    def where(self, mask: NDArray[np.bool_]) -> Scores:
        """The scores of a group of rows, with the same runs."""
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
        predictions: Of one or many runs.
        subset: Only rows of this subset; where no row is marked as test, all rows are used.
        classes: Only images of these classes, with their probabilities scaled to sum 1; a row with another predicted
            class gets the most probable of these.
        abstaining: Accept inconclusive rows; the caller must handle `UNDECIDED`.

    Raises:
        InputError: There is nothing to evaluate, a class is unknown, probabilities do not sum to 1, or an image is
            predicted twice within a repeat.
        UsageError: `classes` has an unknown class.
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
    if predictions.kind != RANKING:
        _check_sums(rows, probabilities, name)
    if predictions.kind == RANKING and not any(row.get("predicted") for row in rows):
        # Without a threshold, scores decide nothing.
        predicted = np.full(len(rows), UNDECIDED, np.intp)
    else:
        predicted = _predicted(rows, probabilities, known, name, notes, abstaining)
    if classes:
        chosen, rows, probabilities, predicted = _restrict(rows, probabilities, predicted, known, classes, name, notes)
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
    run_index = {pair: i for i, pair in enumerate(runs)}
    warned = sum(1 for row in rows if row.get("warning"))
    if warned:
        notes.append(f"{warned} of {len(rows)} predictions have a warning (column `warning`).")
    return Scores(
        tuple(chosen),
        truth,
        predicted,
        probabilities,
        _indices(image_ids),
        _indices(patient_ids),
        np.array([run_index[pair] for pair in pairs], np.intp),
        tuple(runs),
        tuple(rows),
        by_patient,
        tuple(notes),
        predictions.kind,
    )


def _of_subset(rows: Sequence[Row], subset: str, name: str, notes: list[str]) -> list[int]:
    marks = [row.get("subset", "") for row in rows]
    kept = [i for i, mark in enumerate(marks) if mark == subset]
    if kept:
        return kept
    found = ", ".join(f"{mark or '(empty)'} {count}" for mark, count in Counter(marks).items())
    if subset != TEST:
        raise InputError(f"{name}: expected rows with subset '{subset}', found: {found or 'no rows'}")
    if any(marks):
        notes.append(f"No row is marked as test; all rows are used ({found}).")
    return list(range(len(rows)))


def _labelled(rows: Sequence[Row], kept: list[int], name: str, notes: list[str]) -> list[int]:
    labelled = [i for i in kept if rows[i].get("label")]
    if not labelled:
        raise InputError(
            f"{name}: expected labelled images, found {count_of(len(kept), 'row')} without a label",
            "an evaluation needs the column `label`; predict on a manifest that has it",
        )
    if len(labelled) < len(kept):
        notes.append(f"Rows excluded because they have no label: {len(kept) - len(labelled)}.")
    return labelled


def _check_sums(rows: Sequence[Row], probabilities: FloatArray, name: str) -> None:
    inside: NDArray[np.bool_] = (probabilities >= 0) & (probabilities <= 1)
    valid: NDArray[np.bool_] = np.all(inside, axis=1)
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(~valid | ~(np.abs(sums - 1) <= TOLERANCE * probabilities.shape[1]))
    if len(wrong):
        found = f"{sums[wrong[0]]:.4g}" if valid[wrong[0]] else "one that is not a number in [0, 1]"
        raise InputError(
            f"{name}: expected probabilities in [0, 1] that add up to 1, found {found} for {_ids(rows, wrong)}",
            "the prob_ columns must be the probabilities of mutually exclusive classes, not independent scores",
        )


def _predicted(
    rows: Sequence[Row],
    probabilities: FloatArray,
    known: list[str],
    name: str,
    notes: list[str],
    abstaining: bool,
) -> IntArray:
    names = [row.get("predicted", "") for row in rows]
    class_index = {label: i for i, label in enumerate(known)}
    if abstaining:
        class_index.setdefault(INCONCLUSIVE, UNDECIDED)
    strange = [i for i, predicted in enumerate(names) if predicted and predicted not in class_index]
    if strange:
        raise InputError(
            f"{name}: expected a predicted class among {', '.join(known)}, found '{names[strange[0]]}' for "
            f"{_ids(rows, strange)}",
            "only `cxrtool evaluate` accepts inconclusive predictions; `fuse joint --on-conflict prob` makes none"
            if INCONCLUSIVE in names
            else None,
        )
    likeliest = probabilities.argmax(axis=1)
    missing = sum(1 for predicted in names if not predicted)
    if missing:
        notes.append(f"{count_of(missing, 'row has', 'rows have')} no `predicted`; the most probable class is used.")
        tied = (probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1
        ties = sum(1 for predicted, even in zip(names, tied, strict=True) if not predicted and even)
        if ties:
            notes.append(
                f"In {ties} of them several classes are equally probable: the first in the order {', '.join(known)} is "
                "taken."
            )
    decided = np.array(
        [class_index[predicted] if predicted else likeliest[i] for i, predicted in enumerate(names)], np.intp
    )
    if undecided := int((decided == UNDECIDED).sum()):
        notes.append(
            f"{undecided} of {len(rows)} predictions are inconclusive: metrics of decisions, such as accuracy and "
            f"sensitivity, are over the others; AUC, Brier score and calibration are over all images."
        )
    return decided


def _restrict(
    rows: list[Row],
    probabilities: FloatArray,
    predicted: IntArray,
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
        notes.append(f"{len(rows) - len(kept)} rows of other classes are excluded.")
    part = probabilities[np.ix_(kept, columns)]
    total = part.sum(axis=1, keepdims=True)
    empty = int((total == 0).sum())
    if empty:
        notes.append(
            f"In {count_of(empty, 'row')} all of {', '.join(chosen)} "
            f"have probability 0; they are set to equal probabilities."
        )
    part = np.divide(part, total, out=np.full_like(part, 1 / len(chosen)), where=total > 0)
    new_index = {column: i for i, column in enumerate(columns)} | {UNDECIDED: UNDECIDED}
    likeliest = part.argmax(axis=1)
    decided = np.array([new_index.get(predicted[i], likeliest[j]) for j, i in enumerate(kept)], np.intp)
    moved = sum(1 for i in kept if predicted[i] not in new_index)
    if moved:
        notes.append(
            f"{count_of(moved, 'row was', 'rows were')} predicted another "
            f"class; the most probable of {', '.join(chosen)} is used instead."
        )
    return chosen, [rows[i] for i in kept], part, decided


def _check_labels(rows: Sequence[Row], classes: list[str], name: str) -> None:
    strange = Counter(row["label"] for row in rows if row["label"] not in classes)
    if strange:
        found = ", ".join(f"{label} ({count_of(count, 'row')})" for label, count in sorted(strange.items()))
        raise InputError(
            f"{name}: expected labels among {', '.join(classes)}, found {found}",
            "rename them with `cxrtool select --relabel`, or exclude them with --classes",
        )


def _check_once(rows: Sequence[Row], name: str) -> None:
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.get("repeat", ""), original_of(row))
        fold = row.get("fold", "")
        if key in seen:
            repeat = f"repeat {key[0]}" if key[0] else "the only repeat"
            raise InputError(
                f"{name}: expected one prediction an image in {repeat}, found image '{key[1]}' twice "
                f"(folds '{seen[key]}' and '{fold}')",
                "evaluate several files with the same repeat side by side, as first=A.csv second=B.csv",
            )
        seen[key] = fold


def _patients(rows: Sequence[Row], notes: list[str]) -> tuple[list[str], bool]:
    known = identities(rows)
    if not any(known):
        notes.append("There is no patient_id: every image counts as a patient, so intervals may be too narrow.")
        return [original_of(row) for row in rows], False
    nameless = {original_of(row) for row, patient in zip(rows, known, strict=True) if not patient}
    if nameless:
        notes.append(
            f"{count_of(len(nameless), 'image has', 'images have')} no patient_id; each counts as a separate patient."
        )
    # The prefix prevents collisions of image ids with patient ids.
    named = zip(known, rows, strict=True)
    names = [f"p:{row['patient_id']}" if patient else f"i:{original_of(row)}" for patient, row in named]
    # Images that belong together are one patient here as in the splits, also under two ids.
    first: dict[int, str] = {}
    groups = group_images(rows)
    for group, name in zip(groups, names, strict=True):
        first[group] = min(first.get(group, name), name)
    return [first[group] for group in groups], True


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
