"""The validation part of each run, from which temperatures, thresholds and confidence cuts come, not from the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import LeakageError
from cxrtool.evaluation.metrics.confusion import IntArray
from cxrtool.evaluation.scores import Scores, scores_of

VALIDATION = "validation"


@dataclass(frozen=True)
class Validation:
    """What the runs of an evaluation said of their own validation images.

    Attributes:
        scores: Labelled validation rows of all runs, with the evaluation's classes; None where there are none.
        rows: (repeat, fold) of a run to the places of its rows in `scores`.
        reason: Why there are none at all.
    """

    scores: Scores | None = None
    rows: Mapping[tuple[str, str], IntArray] = field(default_factory=dict)
    reason: str = "the predictions hold no validation rows"

    def of(self, run: tuple[str, str]) -> Scores | None:
        """The validation rows of one run, or None."""
        places = self.rows.get(run)
        if self.scores is None or places is None:
            return None
        mask = np.zeros(len(self.scores), np.bool_)
        mask[places] = True
        return self.scores.where(mask)


def find_validation(predictions: Predictions, scores: Scores, classes: Sequence[str] = ()) -> Validation:
    """The validation rows that belong to the runs of `scores`.

    Args:
        predictions: All rows, of every subset.
        scores: What is evaluated.
        classes: As they were given to `scores_of`.

    Raises:
        InputError: The validation rows cannot be evaluated.
        LeakageError: An image, or a patient, is in the validation part and in the test part of one run.
    """
    if any(row.get("subset") == VALIDATION for row in scores.rows):
        return Validation(reason="the validation rows are themselves what is evaluated")
    wanted = set(scores.runs)
    kept = [
        i
        for i, row in enumerate(predictions.rows)
        if row.get("subset") == VALIDATION
        and (row.get("label") in scores.classes)
        and (row.get("repeat", ""), row.get("fold", "")) in wanted
    ]
    if not kept:
        return Validation()
    own = replace(predictions, rows=[predictions.rows[i] for i in kept], probabilities=predictions.probabilities[kept])
    found = scores_of(own, subset=VALIDATION, classes=classes, abstaining=True)
    rows = {run: np.flatnonzero(found.run == place) for place, run in enumerate(found.runs)}
    _check_apart(scores, found, rows)
    return Validation(found, rows)


def _check_apart(scores: Scores, found: Scores, rows: Mapping[tuple[str, str], IntArray]) -> None:
    for place, run in enumerate(scores.runs):
        tested = [scores.rows[i] for i in np.flatnonzero(scores.run == place)]
        known = {name for row in tested for name in _names(row)}
        both = [found.rows[i] for i in rows.get(run, ()) if known.intersection(_names(found.rows[i]))]
        if both:
            raise LeakageError(
                f"repeat '{run[0]}' fold '{run[1]}': expected other patients in validation than in test, found "
                f"{len(both)} validation images that are in both, such as '{both[0].get('image_id', '')}'",
                "what is chosen on them has seen the test; `cxrtool split` keeps patients on one side",
            )


def _names(row: Row) -> list[str]:
    patient = row.get("patient_id", "")
    return [f"i:{original_of(row)}"] + ([f"p:{patient}"] if patient else [])
