"""What simple classifiers said, brought into the form in which a model's answers are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxrtool.auditing.alarm import Run, Trial, sampled
from cxrtool.auditing.inputs import Pictures
from cxrtool.data.splitting.divider import Divider
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import GROUPING, Predictions
from cxrtool.evaluation.metrics.estimates import Estimates, estimate
from cxrtool.evaluation.scores import Scores, scores_of
from cxrtool.evaluation.summary import measures_of

KEPT = ("image_id", "label", *GROUPING)


def predictions(rows: Sequence[Row], runs: Sequence[Run], classes: Sequence[str], trial: Trial) -> Predictions:
    """What a probe said, in the form in which a model says it."""
    said = []
    for run, predicted in zip(runs, trial.predicted, strict=True):
        for place, number in zip(run.test.tolist(), predicted.tolist(), strict=True):
            row = {name: rows[place].get(name, "") for name in KEPT}
            said.append({**row, "repeat": run.repeat, "fold": run.fold, "subset": "test", "predicted": classes[number]})
    return Predictions(list(classes), said, np.concatenate(trial.probabilities), "the probes")


def main_figures(scores: Scores, found: Estimates) -> dict[str, Any]:
    """Balanced accuracy and AUC, as `evaluate` tells them."""
    overall = measures_of(scores, found, None)["overall"]
    return {"balanced_accuracy": overall["balanced_accuracy"], "auc": overall["macro_auc"]}


def figures_of(
    rows: Sequence[Row], runs: Sequence[Run], classes: Sequence[str], trial: Trial, seed: int, resamples: int
) -> dict[str, Any]:
    """Balanced accuracy and AUC of what was said, with intervals."""
    scores = scores_of(predictions(rows, runs, classes, trial))
    return main_figures(scores, estimate(scores, seed=seed, resamples=resamples, calibrated=False))


def divided(pictures: Pictures, count: int, seed: int) -> list[Run]:
    """A cross-validation by patient; in so many folds as every class has patients for, where these are fewer.

    Every class must have two patients at least.
    """
    patients, divider = pictures.patients, Divider(pictures.rows, seed=seed)
    place = {row["image_id"]: i for i, row in enumerate(pictures.rows)}
    found = []
    for fold, subsets in enumerate(divider.folds(min(count, divider.most_folds()), 0.0)):
        train, test = (
            np.array(sorted(place[name] for name, own in subsets.items() if own == wanted), np.intp)
            for wanted in ("train", "test")
        )
        found.append(sampled("0", str(fold), train, test, patients, [seed, fold]))
    return found
