"""Checked predictions as arrays, from which every number of an evaluation is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cxrtool.data.splitting.grouping import group_images, identities
from cxrtool.data.tables.predictions import INCONCLUSIVE, LEARNED, PROBABILITIES, RANKING, Predictions
from cxrtool.data.tables.severity import ESTIMATED
from cxrtool.data.tables.views import Columns, cells_of, columns_of
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.influence import ENOUGH_PATIENTS, MANY_PATIENTS

TEST = "test"
TOLERANCE = 0.0051
"""Allowed difference of the sum of the probabilities from 1, per class: some tables are rounded to two digits."""

UNDECIDED = -1
"""The predicted class of an undecided image: never equal to the true class."""

LABELS_ESTIMATED = (
    f"The labels are {ESTIMATED}: read from the pixels of these images, by a fit that saw none of them; nobody rated "
    "them."
)

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
        rows: The text columns, for groups.
        by_patient: Whether patients are known; otherwise every image counts as a patient.
        many: Whether the whole test set has `MANY_PATIENTS`.
        target: What was learned, as `train --target` reads it; empty where that is the column `label`.
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
    rows: Columns
    by_patient: bool = True
    notes: tuple[str, ...] = field(default=())
    kind: str = PROBABILITIES
    many: bool = False
    target: str = ""

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
        return distinct(self.image)

    @property
    def patients(self) -> int:
        """Number of distinct patients."""
        return distinct(self.patient)

    @property
    def repeat_of_run(self) -> IntArray:
        """(runs,) index of the repeat that each run belongs to."""
        repeats = list(dict.fromkeys(repeat for repeat, _ in self.runs))
        return np.array([repeats.index(repeat) for repeat, _ in self.runs], np.intp)

    @property
    def strata(self) -> IntArray:
        """(P,) the most frequent label of each patient (ties: the first class), which resampling keeps constant."""
        classes = len(self.classes)
        cells = np.bincount(self.patient * classes + self.truth, minlength=self.patients * classes)
        counts = cells.reshape(-1, classes)
        commonest: IntArray = counts.argmax(axis=1).astype(np.intp)
        return commonest

    @property
    def by_influence(self) -> bool:
        """Whether the intervals come from influence functions instead of resamples."""
        return self.many and self.patients >= ENOUGH_PATIENTS

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
            rows=self.rows.take(kept.tolist()),
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
    target = _target(predictions.column(LEARNED), name)
    if target.partition(":")[0] == ESTIMATED:
        notes.append(LABELS_ESTIMATED)
    known = list(predictions.classes)
    if len(known) < 2:
        raise InputError(f"{name}: expected prob_ columns of two classes or more, found {', '.join(known) or 'none'}")
    rows = columns_of(predictions.records, predictions.columns)
    kept = _labelled(rows, _of_subset(rows, subset, name, notes), name, notes)
    probabilities = np.asarray(predictions.probabilities, np.float64)
    if len(kept) < len(rows):
        rows, probabilities = rows.take(kept.tolist()), probabilities[kept]
    if predictions.kind != RANKING:
        _check_sums(rows, probabilities, name)
    if predictions.kind == RANKING and not any(cells_of(rows, "predicted")):
        # Without a threshold, scores decide nothing.
        predicted = np.full(len(rows), UNDECIDED, np.intp)
    else:
        predicted = _predicted(rows, probabilities, known, name, notes, abstaining)
    if classes:
        chosen, rows, probabilities, predicted = _restrict(rows, probabilities, predicted, known, classes, name, notes)
    else:
        chosen = known
    _check_labels(rows, chosen, name)
    truth = _codes(cells_of(rows, "label"), {label: k for k, label in enumerate(chosen)})
    originals = originals_of(rows)
    if subset == TEST:
        _check_once(rows, originals, name)
    patient_ids, by_patient = _patients(rows, originals, notes)
    pairs = [*zip(cells_of(rows, "repeat"), cells_of(rows, "fold"), strict=True)]
    runs = sorted(set(pairs), key=_numeric)
    run_index = {pair: i for i, pair in enumerate(runs)}
    warned = len(rows) - cells_of(rows, "warning").count("")
    if warned:
        notes.append(f"{warned} of {len(rows)} predictions have a warning (column `warning`).")
    patient = _indices(patient_ids)
    return Scores(
        tuple(chosen),
        truth,
        predicted,
        probabilities,
        _indices(originals),
        patient,
        np.fromiter((run_index[pair] for pair in pairs), np.intp, len(pairs)),
        tuple(runs),
        rows,
        by_patient,
        tuple(notes),
        predictions.kind,
        int(patient.max()) + 1 >= MANY_PATIENTS,
        target,
    )


def _target(cells: Sequence[str], name: str) -> str:
    found = dict.fromkeys(cells)
    if len(found) > 1:
        one, other = ((text.partition(":")[0] or "label") for text in list(found)[:2])
        raise InputError(
            f"{name}: expected predictions of one column, found some of {one} and some of {other}",
            "evaluate them side by side, as first=A.csv second=B.csv",
        )
    return next(iter(found), "")


def originals_of(rows: Columns) -> list[str]:
    """The `original_of` every row."""
    columns = (cells_of(rows, name) for name in ("image_id", "parent_id", "generator"))
    return [image if generator else parent or image for image, parent, generator in zip(*columns, strict=True)]


def _codes(cells: Sequence[str], codes: Mapping[str, int]) -> IntArray:
    return np.fromiter(map(codes.__getitem__, cells), np.intp, len(cells))


def _of_subset(rows: Columns, subset: str, name: str, notes: list[str]) -> IntArray:
    marks = cells_of(rows, "subset")
    kept = np.flatnonzero(np.fromiter((mark == subset for mark in marks), np.bool_, len(marks)))
    if len(kept):
        return kept
    found = ", ".join(f"{mark or '(empty)'} {count}" for mark, count in Counter(marks).items())
    if subset != TEST:
        raise InputError(f"{name}: expected rows with subset '{subset}', found: {found or 'no rows'}")
    if any(marks):
        notes.append(f"No row is marked as test; all rows are used ({found}).")
    return np.arange(len(rows))


def _labelled(rows: Columns, kept: IntArray, name: str, notes: list[str]) -> IntArray:
    labels = cells_of(rows, "label")
    labelled = kept[np.fromiter((bool(labels[i]) for i in kept.tolist()), np.bool_, len(kept))]
    if not len(labelled):
        raise InputError(
            f"{name}: expected labelled images, found {count_of(len(kept), 'row')} without a label",
            "an evaluation needs the column `label`; predict on a manifest that has it",
        )
    if len(labelled) < len(kept):
        notes.append(f"Rows excluded because they have no label: {len(kept) - len(labelled)}.")
    return labelled


def _check_sums(rows: Columns, probabilities: FloatArray, name: str) -> None:
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
    rows: Columns,
    probabilities: FloatArray,
    known: list[str],
    name: str,
    notes: list[str],
    abstaining: bool,
) -> IntArray:
    names = cells_of(rows, "predicted")
    class_index = {label: i for i, label in enumerate(known)}
    if abstaining:
        class_index.setdefault(INCONCLUSIVE, UNDECIDED)
    unknown = set(names) - class_index.keys() - {""}
    if unknown:
        strange = [i for i, predicted in enumerate(names) if predicted in unknown]
        raise InputError(
            f"{name}: expected a predicted class among {', '.join(known)}, found '{names[strange[0]]}' for "
            f"{_ids(rows, strange)}",
            "only `cxrtool evaluate` accepts inconclusive predictions; `fuse joint --on-conflict prob` makes none"
            if INCONCLUSIVE in names
            else None,
        )
    decided = _codes(names, {**class_index, "": -2})
    missing = decided == -2
    if missing.any():
        number = int(missing.sum())
        notes.append(f"{count_of(number, 'row has', 'rows have')} no `predicted`; the most probable class is used.")
        unknown_of = probabilities[missing]
        decided[missing] = unknown_of.argmax(axis=1)
        ties = int(((unknown_of == unknown_of.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
        if ties:
            notes.append(
                f"In {ties} of them several classes are equally probable: the first in the order {', '.join(known)} is "
                "taken."
            )
    if undecided := int((decided == UNDECIDED).sum()):
        notes.append(
            f"{undecided} of {len(rows)} predictions are inconclusive: metrics of decisions, such as accuracy and "
            f"sensitivity, are over the others; AUC, Brier score and calibration are over all images."
        )
    return decided


def _restrict(
    rows: Columns,
    probabilities: FloatArray,
    predicted: IntArray,
    known: list[str],
    classes: Sequence[str],
    name: str,
    notes: list[str],
) -> tuple[list[str], Columns, FloatArray, IntArray]:
    strange = [wanted for wanted in classes if wanted not in known]
    if strange or len(set(classes)) < 2:
        found = f"found '{strange[0]}'" if strange else "found fewer"
        raise UsageError(f"--classes: expected two or more of {', '.join(known)}, {found}")
    chosen = list(dict.fromkeys(classes))
    columns = [known.index(wanted) for wanted in chosen]
    kept = [i for i, label in enumerate(cells_of(rows, "label")) if label in chosen]
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
    # The last entry is that of `UNDECIDED`, -1.
    new_index = np.array([columns.index(k) if k in columns else -2 for k in range(len(known))] + [UNDECIDED])
    decided = new_index[predicted[kept]]
    others = decided == -2
    decided[others] = part[others].argmax(axis=1)
    moved = int(others.sum())
    if moved:
        notes.append(
            f"{count_of(moved, 'row was', 'rows were')} predicted another "
            f"class; the most probable of {', '.join(chosen)} is used instead."
        )
    return chosen, rows.take(kept), part, decided.astype(np.intp)


def _check_labels(rows: Columns, classes: list[str], name: str) -> None:
    strange = {label: count for label, count in Counter(cells_of(rows, "label")).items() if label not in classes}
    if strange:
        found = ", ".join(f"{label} ({count_of(count, 'row')})" for label, count in sorted(strange.items()))
        raise InputError(
            f"{name}: expected labels among {', '.join(classes)}, found {found}",
            "rename them with `cxrtool select --relabel`, or exclude them with --classes",
        )


def _check_once(rows: Columns, originals: Sequence[str], name: str) -> None:
    repeats, folds = cells_of(rows, "repeat"), cells_of(rows, "fold")
    if len({*zip(repeats, originals, strict=True)}) == len(rows):
        return
    seen: dict[tuple[str, str], str] = {}
    for key, fold in zip(zip(repeats, originals, strict=True), folds, strict=True):
        if key in seen:
            repeat = f"repeat {key[0]}" if key[0] else "the only repeat"
            raise InputError(
                f"{name}: expected one prediction an image in {repeat}, found image '{key[1]}' twice "
                f"(folds '{seen[key]}' and '{fold}')",
                "evaluate several files with the same repeat side by side, as first=A.csv second=B.csv",
            )
        seen[key] = fold


def _patients(rows: Columns, originals: Sequence[str], notes: list[str]) -> tuple[list[str], bool]:
    known = identities(rows)
    if not any(known):
        notes.append("There is no patient_id: every image counts as a patient, so intervals may be too narrow.")
        return list(originals), False
    nameless = {original for original, patient in zip(originals, known, strict=True) if not patient}
    if nameless:
        notes.append(
            f"{count_of(len(nameless), 'image has', 'images have')} no patient_id; each counts as a separate patient."
        )
    # Images that belong together are one patient here as in the splits, also under two ids.
    first: dict[int, str] = {}
    groups = group_images(rows)
    for group, patient, identity, original in zip(groups, known, cells_of(rows, "patient_id"), originals, strict=True):
        # The prefix prevents collisions of image ids with patient ids.
        named = f"p:{identity}" if patient else f"i:{original}"
        if named < first.setdefault(group, named):
            first[group] = named
    return [first[group] for group in groups], True


def _indices(names: Sequence[str]) -> IntArray:
    """The index of each name among the sorted names."""
    codes = {name: code for code, name in enumerate(sorted(set(names)))}
    return _codes(names, codes)


def distinct(indices: IntArray) -> int:
    """The number of different values of indices that are not negative."""
    return int(np.count_nonzero(np.bincount(indices)))


def _dense(indices: IntArray) -> IntArray:
    return np.unique(indices, return_inverse=True)[1].astype(np.intp)


def _numeric(pair: tuple[str, str]) -> tuple[tuple[bool, str], ...]:
    return tuple((not part.isdigit(), part.zfill(9)) for part in pair)


def _ids(rows: Columns, indices: Sequence[int] | IntArray) -> str:
    shown = [cells_of(rows, "image_id")[i] for i in indices[:_SHOWN]]
    more = len(indices) - len(shown)
    return f"image {', '.join(shown)}" + (f" and {more} more" if more else "")
