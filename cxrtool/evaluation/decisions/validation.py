"""The validation images of each run, on which temperatures, thresholds and confidence limits are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from cxrtool.data.splitting.grouping import normalised, original_of
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.views import RowView, cells_of
from cxrtool.errors import LeakageError
from cxrtool.evaluation.metrics.confusion import IntArray
from cxrtool.evaluation.scores import Scores, scores_of

VALIDATION = "validation"


@dataclass(frozen=True)
class Validation:
    """The predictions of the runs for their own validation images.

    Attributes:
        scores: Labelled validation rows of all runs, with the classes of the evaluation; None where there are none.
        rows: Indices into `scores` by the (repeat, fold) of a run.
        reason: Why there are none.
    """

    scores: Scores | None = None
    rows: Mapping[tuple[str, str], IntArray] = field(default_factory=dict)
    reason: str = "the predictions have no validation rows"

    def of(self, run: tuple[str, str]) -> Scores | None:
        """The validation rows of one run, or None."""
        indices = self.rows.get(run)
        if self.scores is None or indices is None:
            return None
        mask = np.zeros(len(self.scores), np.bool_)
        mask[indices] = True
        return self.scores.where(mask)


def find_validation(predictions: Predictions, scores: Scores, classes: Sequence[str] = ()) -> Validation:
    """The validation rows of the runs of `scores`, among `predictions` of every subset.

    Raises:
        InputError: The validation rows cannot be evaluated.
        LeakageError: An image, or a patient, is in validation and in test of one run.
    """
    if VALIDATION in cells_of(scores.rows, "subset"):
        return Validation(reason="the validation rows themselves are evaluated")
    wanted = set(scores.runs)
    columns = (predictions.column(name) for name in ("subset", "label", "repeat", "fold"))
    kept = [
        i
        for i, (subset, label, *run) in enumerate(zip(*columns, strict=True))
        if subset == VALIDATION and label in scores.classes and tuple(run) in wanted
    ]
    if not kept:
        return Validation()
    own = copy(predictions)
    own.keep(kept)
    found = scores_of(own, subset=VALIDATION, classes=classes, abstaining=True)
    rows = {run: np.flatnonzero(found.run == index) for index, run in enumerate(found.runs)}
    _check_apart(scores, found, rows)
    return Validation(found, rows)


def _check_apart(scores: Scores, found: Scores, rows: Mapping[tuple[str, str], IntArray]) -> None:
    for index, run in enumerate(scores.runs):
        tested = [scores.rows[int(i)] for i in np.flatnonzero(scores.run == index)]
        known = {name for row in tested for name in _names(row)}
        validated = [found.rows[int(i)] for i in rows.get(run, ())]
        both = [row for row in validated if known.intersection(_names(row))]
        if both:
            raise LeakageError(
                f"repeat '{run[0]}' fold '{run[1]}': expected different patients in validation and test, found "
                f"{len(both)} validation images that are in both, such as '{both[0].get('image_id', '')}'",
                "choosing on them leaks the test images; `cxrtool split` keeps the images of a patient in one subset",
            )


def _names(row: RowView) -> list[str]:
    patient = normalised(row.get("patient_id", ""))
    return [f"i:{original_of(row)}"] + ([f"p:{patient}"] if patient else [])
