"""Aligns two runs on the same test images, or gives the reason why they cannot be compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import IntArray
from cxrtool.evaluation.scores import Scores
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


def keys_of(scores: Scores) -> list[Key]:
    """Repeat, fold and image id of every row; a missing repeat or fold is 0, as in splits."""
    return [key_of(row) for row in scores.rows]


def key_of(row: Row) -> Key:
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
    ours, theirs = ({key: i for i, key in enumerate(keys_of(scores))} for scores in (first, second))
    for tested, others, who in ((ours, seen[1], names[1]), (theirs, seen[0], names[0])):
        taken = {key[2] for key in others if key in tested}
        if taken:
            what = f"{who} was trained on {count_of(len(taken), 'test image')} of the other, such as {min(taken)}"
            return Alignment(reason=f"not the same split: {what}")
    moved = _moved(set(ours), set(theirs))
    if moved:
        what = f"{count_of(len(moved), 'image')} tested in different folds, such as {min(moved)}"
        return Alignment(reason=f"not the same split: {what}")
    common = [key for key in ours if key in theirs]
    if not common:
        return Alignment(reason="not the same split: no test image in a common repeat and fold")
    a, b = (np.array([rows[key] for key in common], np.intp) for rows in (ours, theirs))
    if (first.truth[a] != second.truth[b]).any():
        wrong = int(np.flatnonzero(first.truth[a] != second.truth[b])[0])
        sides = zip((first, second), (a, b), names, strict=True)
        labels = (f"{scores.classes[scores.truth[rows][wrong]]} in {name}" for scores, rows, name in sides)
        return Alignment(reason=f"other labels: {common[wrong][2]} is {', '.join(labels)}")
    known, other = (second, b) if second.by_patient and not first.by_patient else (first, a)
    if first.by_patient and second.by_patient:
        pairs = len(set(zip(first.patient[a].tolist(), second.patient[b].tolist(), strict=True)))
        if pairs != len(np.unique(first.patient[a])) or pairs != len(np.unique(second.patient[b])):
            return Alignment(reason=f"other patients: {names[0]} and {names[1]} group the images differently")
    patient = known.patient[other]
    one, two = (_take(scores, rows, patient, known.by_patient) for scores, rows in ((first, a), (second, b)))
    lacking = [
        f"{name} lacks {count_of(len(missing), 'test prediction')}, such as {_shown(min(missing))}"
        for name, missing in ((names[1], set(ours) - set(theirs)), (names[0], set(theirs) - set(ours)))
        if missing
    ]
    differs = f"{'; '.join(lacking)}: compared on the {len(one)} predictions that both have" if lacking else ""
    same = all(
        len(rows) == len(scores) and bool((patient == scores.patient[rows]).all())
        for scores, rows in ((first, a), (second, b))
    )
    return Alignment(one, two, differs, whole=same)


def _shown(key: Key) -> str:
    return f"{key[2]} in r{key[0]}f{key[1]}"


def _moved(ours: set[Key], theirs: set[Key]) -> set[str]:
    """Images that the two test in different folds of the same repeat."""
    fold = {(repeat, image): fold for repeat, fold, image in ours}
    return {image for repeat, f, image in theirs if fold.get((repeat, image), f) != f}


def _take(scores: Scores, rows: IntArray, patient: IntArray, by_patient: bool) -> Scores:
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
        rows=tuple(scores.rows[i] for i in rows),
        by_patient=by_patient,
        notes=(),
    )
