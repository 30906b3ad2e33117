"""Probes on the splits of a model: trained, tested and measured, and what chance alone would reach.

Labels are permuted among whole patients. A permutation is the same in all repeats and folds, in training and in test.
In a set whose images contain nothing about its labels, the true labels are then one permutation like the others (Ojala
& Garriga 2010, "Permutation Tests for Studying Classifier Performance", test 1). The level of alarm comes from the best
of several probes in each permutation, so that more probes do not make a false alarm more likely.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cxrtool.auditing import classifier
from cxrtool.auditing.classifier import KERNELS, Features
from cxrtool.auditing.views import ImageSet
from cxrtool.data.splitting.divider import Divider
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.predictions import GROUPING, Predictions
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide, mean_defined
from cxrtool.evaluation.metrics.estimates import Estimates, estimate
from cxrtool.evaluation.scores import Scores, scores_of
from cxrtool.evaluation.summary import measures_of

PERMUTATIONS = 200
SHARE = 0.99
"""Share of the permutations that stay below the level."""

KEPT = ("image_id", "label", *GROUPING)


class Fold(Protocol):
    """One fold of the splits, as `flow.assignment.Assignment` is."""

    @property
    def repeat(self) -> str:
        """As in the splits."""

    @property
    def fold(self) -> str:
        """As in the splits."""

    @property
    def subsets(self) -> Mapping[str, Sequence[int]]:
        """Indices in the manifest of the images of `train`, `validation` and `test`."""


class Progress(Protocol):
    """Shows the progress of a long loop, as `flow.settings.Reporter` does."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show it; the function takes the number of items finished since its last call."""


class NoProgress:
    """Shows no progress."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show nothing."""
        return contextlib.nullcontext(lambda count: None)


@dataclass(frozen=True)
class Run:
    """One fold as a probe is trained and tested in it.

    Attributes:
        train: Indices of the images that it is trained on: those of `train` alone, as for the model.
        test: Indices of the images that it is tested on.
        excluded: Training images beyond `classifier.MOST`, which it does not use.
    """

    repeat: str
    fold: str
    train: IntArray
    test: IntArray
    excluded: int = 0


@dataclass(frozen=True)
class Trial:
    """The predictions of a probe in every run.

    Attributes:
        reached: (1 + P,) balanced accuracy with the true labels, then with each permutation.
        predicted: For each run (t,) the class index.
        probabilities: For each run (t, K).
    """

    reached: FloatArray
    predicted: list[IntArray]
    probabilities: list[FloatArray]

    @property
    def p(self) -> float:
        """Share of the labellings, including the true one, in which it reaches as much as with the true one."""
        return float((self.reached >= self.reached[0] - 1e-12).mean())


def runs_of(pictures: ImageSet, folds: Sequence[Fold], seed: int) -> list[Run]:
    """The folds as indices of the images that could be read, without folds that have no training or no test images."""
    patients = pictures.patients
    found = []
    for number, fold in enumerate(folds):
        train, test = (pictures.at(fold.subsets.get(name, ())) for name in ("train", "test"))
        if len(train) and len(test):
            found.append(sampled(fold.repeat, fold.fold, train, test, patients, [seed, number]))
    return found


def divided(pictures: ImageSet, count: int, seed: int) -> list[Run]:
    """A cross-validation by patient; in fewer folds than `count` where a class has fewer patients.

    Every class must have two patients at least.
    """
    patients, divider = pictures.patients, Divider(pictures.rows, seed=seed)
    found = []
    for fold, subsets in enumerate(divider.folds(min(count, divider.most_folds()), 0.0)):
        subset_of = np.array([subsets.get(row["image_id"], "") for row in pictures.rows])
        train, test = (np.flatnonzero(subset_of == wanted) for wanted in ("train", "test"))
        found.append(sampled("0", str(fold), train, test, patients, [seed, fold]))
    return found


def sampled(repeat: str, fold: str, train: IntArray, test: IntArray, patients: IntArray, seed: Sequence[int]) -> Run:
    """A run with these training and test images; where there are too many, it trains on a sample of patients."""
    kept = classifier.sample(patients[train], np.random.default_rng(list(seed)))
    return Run(repeat, fold, train[kept], test, len(train) - len(kept))


def permute_labels(labels: IntArray, patients: IntArray, count: int, seed: int) -> IntArray:
    """The true labels, then `count` permutations of the labels among patients.

    Images of a patient with one label still have one label after the permutation. The labels of a patient with several
    are used in their order, and repeated where the other patient has more images.

    Args:
        labels: (n,) class indices; -1 where an image has no class, which is never permuted.
        patients: (n,) patient of each image.
        count: Number of permutations P.
        seed: The seed of the permutations.

    Returns:
        (n, 1 + P) class indices.
    """
    known = np.flatnonzero(labels >= 0)
    labellings = np.repeat(labels[:, None], count + 1, axis=1)
    _, owner, sizes = np.unique(patients[known], return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    begins = np.cumsum(sizes) - sizes
    rank = np.empty(len(known), np.intp)
    rank[order] = np.arange(len(known)) - np.repeat(begins, sizes)
    by_owner = labels[known][order]
    rng = np.random.default_rng(seed)
    for column in range(1, count + 1):
        giver = rng.permutation(len(sizes))[owner]
        labellings[known, column] = by_owner[begins[giver] + rank % sizes[giver]]
    return labellings


def run_probe(
    features: Features, kernel: str, labellings: IntArray, patients: IntArray, runs: Sequence[Run], classes: int
) -> Trial:
    """Train and test on features (n, d) in every run, for every labelling (n, 1 + P) of `permute_labels`.

    `kernel` is a key of `KERNELS`, `classes` the number of classes K.
    """
    found = [
        classifier.classify(
            KERNELS[kernel](features[run.train], features[run.test]),
            labellings[run.train],
            patients[run.train],
            classes,
        )
        for run in runs
    ]
    reached = _reached([preds.predicted for preds in found], runs, labellings, classes)
    return Trial(reached, [preds.predicted[:, 0] for preds in found], [preds.probabilities for preds in found])


def nearest(features: Features, labellings: IntArray, runs: Sequence[Run], classes: int) -> FloatArray:
    """(1 + P,) balanced accuracy of the label of the nearest training image.

    The classifiers of probes choose their penalty by leave-one-patient-out, so they do not memorise patients. This one
    only memorises: with permuted labels it is better than chance only where the nearest image is of the same patient,
    which never happens where the splits do not leak.
    """
    predicted = []
    for run in runs:
        inside, outside = classifier.standardise(features[run.train], features[run.test])
        distances = (inside**2).sum(axis=1) - 2 * outside @ inside.T
        predicted.append(labellings[run.train[distances.argmin(axis=1)]])
    return _reached(predicted, runs, labellings, classes)


def _reached(predicted: Sequence[IntArray], runs: Sequence[Run], labellings: IntArray, classes: int) -> FloatArray:
    """(1 + P,) balanced accuracy of predictions (t, 1 + P) of every run: pooled over folds, mean over repeats."""
    repeats = list(dict.fromkeys(run.repeat for run in runs))
    hits, totals = (np.zeros((len(repeats), classes, labellings.shape[1])) for _ in range(2))
    for run, preds in zip(runs, predicted, strict=True):
        truth, repeat = labellings[run.test], repeats.index(run.repeat)
        for k in range(classes):
            totals[repeat, k] += (truth == k).sum(axis=0)
            hits[repeat, k] += ((truth == k) & (preds == k)).sum(axis=0)
    return mean_defined(mean_defined(divide(hits, totals)))


def level_of(trials: Sequence[Trial], share: float = SHARE) -> float:
    """The level below which the best of several probes stays in a share of the permutations."""
    largest = np.max([trial.reached[1:] for trial in trials], axis=0)
    return float(np.quantile(largest, share, method="higher"))


def scored(rows: Sequence[Row], runs: Sequence[Run], classes: Sequence[str], trial: Trial) -> Scores:
    """The predictions of a probe, as those of a model are evaluated."""
    found = []
    for run, predicted in zip(runs, trial.predicted, strict=True):
        for index, k in zip(run.test.tolist(), predicted.tolist(), strict=True):
            row = {name: rows[index].get(name, "") for name in KEPT}
            found.append({**row, "repeat": run.repeat, "fold": run.fold, "subset": "test", "predicted": classes[k]})
    return scores_of(Predictions(list(classes), found, np.concatenate(trial.probabilities), "the probes"))


def main_figures(scores: Scores, found: Estimates) -> dict[str, Any]:
    """Balanced accuracy and AUC, as `evaluate` computes them."""
    overall = measures_of(scores, found, None)["overall"]
    return {"balanced_accuracy": overall["balanced_accuracy"], "auc": overall["macro_auc"]}


def figures_of(scores: Scores, seed: int, resamples: int) -> dict[str, Any]:
    """Balanced accuracy and AUC with intervals."""
    return main_figures(scores, estimate(scores, seed=seed, resamples=resamples, calibrated=False))
