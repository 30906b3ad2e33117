"""The predictions of simple classifiers, measured in the same way as those of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cxrtool.auditing.alarm import Run, Trial, sampled
from cxrtool.auditing.inputs import ImageSet
from cxrtool.data.splitting.divider import Divider
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import GROUPING, Predictions
from cxrtool.evaluation.metrics.estimates import Estimates, estimate
from cxrtool.evaluation.scores import Scores, scores_of
from cxrtool.evaluation.summary import measures_of

KEPT = ("image_id", "label", *GROUPING)


def predictions(rows: Sequence[Row], runs: Sequence[Run], classes: Sequence[str], trial: Trial) -> Predictions:
    """The predictions of a probe as a table of predictions."""
    found = []
    for run, predicted in zip(runs, trial.predicted, strict=True):
        for index, k in zip(run.test.tolist(), predicted.tolist(), strict=True):
            row = {name: rows[index].get(name, "") for name in KEPT}
            found.append({**row, "repeat": run.repeat, "fold": run.fold, "subset": "test", "predicted": classes[k]})
    return Predictions(list(classes), found, np.concatenate(trial.probabilities), "the probes")


def main_figures(scores: Scores, found: Estimates) -> dict[str, Any]:
    """Balanced accuracy and AUC, as `evaluate` computes them."""
    overall = measures_of(scores, found, None)["overall"]
    return {"balanced_accuracy": overall["balanced_accuracy"], "auc": overall["macro_auc"]}


def figures_of(
    rows: Sequence[Row], runs: Sequence[Run], classes: Sequence[str], trial: Trial, seed: int, resamples: int
) -> dict[str, Any]:
    """Balanced accuracy and AUC of the predictions of a probe, with intervals."""
    scores = scores_of(predictions(rows, runs, classes, trial))
    return main_figures(scores, estimate(scores, seed=seed, resamples=resamples, calibrated=False))


def divided(pictures: ImageSet, count: int, seed: int) -> list[Run]:
    """A cross-validation by patient; in fewer folds than `count` where a class has fewer patients.

    Every class must have two patients at least.
    """
    patients, divider = pictures.patients, Divider(pictures.rows, seed=seed)
    index = {row["image_id"]: i for i, row in enumerate(pictures.rows)}
    found = []
    for fold, subsets in enumerate(divider.folds(min(count, divider.most_folds()), 0.0)):
        train, test = (
            np.array(sorted(index[name] for name, subset in subsets.items() if subset == wanted), np.intp)
            for wanted in ("train", "test")
        )
        found.append(sampled("0", str(fold), train, test, patients, [seed, fold]))
    return found
