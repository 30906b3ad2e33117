"""Two runs brought to the very same test images, or the reason why they cannot be compared."""

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
    """The same scores with their classes in another order, where they are the same classes."""
    if tuple(classes) == scores.classes or set(classes) != set(scores.classes):
        return scores
    columns = [scores.classes.index(name) for name in classes]
    place = np.argsort(columns).astype(np.intp)
    return replace(
        scores,
        classes=tuple(classes),
        truth=place[scores.truth],
        predicted=place[scores.predicted],
        probabilities=scores.probabilities[:, columns],
    )


def keys_of(scores: Scores) -> list[Key]:
    """Repeat, fold and image id of every row; what is not named is called 0, as in splits."""
    return [key_of(row) for row in scores.rows]


def key_of(row: Row) -> Key:
    """Repeat, fold and image id of one row; of a derived image, that of the radiograph it was made of."""
    return row.get("repeat") or "0", row.get("fold") or "0", original_of(row)


@dataclass(frozen=True)
class Alignment:
    """Two runs on their common images.

    Attributes:
        first: Rows of the one, None where they cannot be compared.
        second: The same rows of the other.
        differs: In one line what one of them lacks; empty where both have the same images.
        reason: Why they cannot be compared.
        whole: Whether nothing was left out and no patient renumbered, so that what was estimated of each still holds.
    """

    first: Scores | None = None
    second: Scores | None = None
    differs: str = ""
    reason: str = ""
    whole: bool = False


def align(
    first: Scores, second: Scores, names: tuple[str, str], seen: tuple[Collection[Key], Collection[Key]] = ((), ())
) -> Alignment:
    """Bring two runs to the same rows in the same order; refuse where they were not tested alike.

    Images that one of them lacks are left out if the others stand in the same repeat and fold of both: then it is one
    split, of which something is missing. An image that one tests and the other has seen, or tests in another fold,
    makes it another split.

    Args:
        first: Test predictions of the one.
        second: Test predictions of the other.
        names: What to call them.
        seen: What each was fitted or validated on, where that is known.
    """
    if first.classes != second.classes:
        return Alignment(
            reason=f"other classes: {', '.join(first.classes)} of {names[0]}, {', '.join(second.classes)} of {names[1]}"
        )
    ours, theirs = ({key: i for i, key in enumerate(keys_of(scores))} for scores in (first, second))
    for tested, others, who in ((ours, seen[1], names[1]), (theirs, seen[0], names[0])):
        taken = {key[2] for key in others if key in tested}
        if taken:
            what = f"{count_of(len(taken), 'test image')} of the other were seen by {who}, such as {min(taken)}"
            return Alignment(reason=f"not the same split: {what}")
    moved = _moved(set(ours), set(theirs))
    if moved:
        what = f"{count_of(len(moved), 'image')} tested in another fold, such as {min(moved)}"
        return Alignment(reason=f"not the same split: {what}")
    common = [key for key in ours if key in theirs]
    if not common:
        return Alignment(reason="not the same split: no test image in a common repeat and fold")
    a, b = (np.array([places[key] for key in common], np.intp) for places in (ours, theirs))
    if (first.truth[a] != second.truth[b]).any():
        wrong = int(np.flatnonzero(first.truth[a] != second.truth[b])[0])
        sides = zip((first, second), (a, b), names, strict=True)
        labels = (f"{scores.classes[scores.truth[rows][wrong]]} in {name}" for scores, rows, name in sides)
        return Alignment(reason=f"other labels: {common[wrong][2]} is {', '.join(labels)}")
    known, other = (second, b) if second.by_patient and not first.by_patient else (first, a)
    if first.by_patient and second.by_patient:
        pairs = len(set(zip(first.patient[a].tolist(), second.patient[b].tolist(), strict=True)))
        if pairs != len(np.unique(first.patient[a])) or pairs != len(np.unique(second.patient[b])):
            return Alignment(reason=f"other patients: images that share one in {names[0]} do not in {names[1]}")
    patient = known.patient[other]
    one, two = (_take(scores, rows, patient, known.by_patient) for scores, rows in ((first, a), (second, b)))
    lacking = [
        f"{name} lacks {count_of(len(missing), 'test prediction')}, such as {_shown(min(missing))}"
        for name, missing in ((names[1], set(ours) - set(theirs)), (names[0], set(theirs) - set(ours)))
        if missing
    ]
    differs = f"{'; '.join(lacking)}: compared on the {len(one)} that both have" if lacking else ""
    same = all(
        len(rows) == len(scores) and bool((patient == scores.patient[rows]).all())
        for scores, rows in ((first, a), (second, b))
    )
    return Alignment(one, two, differs, whole=same)


def _shown(key: Key) -> str:
    return f"{key[2]} in r{key[0]}f{key[1]}"


def _moved(ours: set[Key], theirs: set[Key]) -> set[str]:
    """Images that the two test in different folds of one repeat that both have."""
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
