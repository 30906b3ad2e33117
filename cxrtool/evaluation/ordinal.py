"""Classes in an order, such as severities: how many classes a prediction is away from the truth.

The score of an image is its expected class: the sum of the places of the classes, 0 to K - 1, each times its
probability. Correlations and bias are of the score, weighted kappa is of the predicted class, and the mean absolute
error is given of both (`metrics.agreement`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cxrtool.data.tables.predictions import PROBABILITIES
from cxrtool.data.tables.severity import SEVERITIES
from cxrtool.evaluation.groups import parse_groupings, strata_of
from cxrtool.evaluation.metrics.agreement import Agreement
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.intervals import Measure
from cxrtool.evaluation.scores import Scores


def order_of(scores: Scores) -> IntArray | None:
    """The place (K,) of each class, 0 is the least; None where the classes have no order.

    They have one if the predictions are of a target with an order, or if all classes are severities.
    """
    target = parse_groupings(scores.target)
    known = (strata_of(target[0]) if target else []) or SEVERITIES
    names = list(scores.classes) if target else [name.casefold() for name in scores.classes]
    if not set(names) <= set(known):
        return None
    places = sorted(names, key=list(known).index)
    return np.array([places.index(name) for name in names], np.intp)


def summarise_order(scores: Scores, *, seed: int, resamples: int) -> dict[str, Any] | None:
    """The entry `ordinal` of `metrics.json`; None where classes have no order, or no image has a predicted class."""
    order = order_of(scores)
    if order is None or not scores.decided.any():
        return None
    decided = scores.where(scores.decided)
    truth, predicted = order[decided.truth], order[decided.predicted]
    repeats = decided.repeat_of_run[decided.run]

    def figures(found: FloatArray | IntArray) -> dict[str, Measure]:
        return Agreement(
            found.astype(np.float64),
            truth.astype(np.float64),
            decided.patient,
            (predicted, truth),
            len(order),
            repeats,
            decided.strata,
            decided.by_patient,
        ).figures(seed, resamples)

    of_class = figures(predicted)
    measured = {name: of_class[name] for name in ("mae", "weighted_kappa")}
    if scores.kind == PROBABILITIES:
        of_score = figures(decided.probabilities @ order)
        measured |= {
            "mae_expected": of_score["mae"],
            **{name: of_score[name] for name in ("bias", "spearman", "pearson")},
        }
    names = [scores.classes[k] for k in np.argsort(order)]
    cells = np.bincount(truth * len(order) + predicted, minlength=len(order) ** 2).reshape(len(order), -1)
    return {
        "order": names,
        "images": decided.images,
        **{name: figure.as_json() for name, figure in measured.items()},
        "mae_of_median": float(np.abs(truth - np.median(truth).round()).mean()),
        "confusion": cells.tolist(),
    }
