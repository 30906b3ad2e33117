"""What chance alone would reach: the same classifiers on labels permuted among the patients.

Labels are permuted among whole patients. A permutation is the same in all repeats and folds, in training and in test.
In a set whose images contain nothing about its labels, the true labels are then one permutation like the others (Ojala
& Garriga 2010, "Permutation Tests for Studying Classifier Performance", test 1). The level of alarm comes from the best
of several probes in each permutation, so that more probes do not make a false alarm more likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrtool.auditing import classifier
from cxrtool.auditing.classifier import KERNELS, Features
from cxrtool.auditing.inputs import Fold, ImageSet
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide, mean_defined

PERMUTATIONS = 200
SHARE = 0.99
"""Share of the permutations that stay below the level."""


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
        if not len(train) or not len(test):
            continue
        found.append(sampled(fold.repeat, fold.fold, train, test, patients, [seed, number]))
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
    """Train and test in every run, for every labelling.

    Args:
        features: (n, d).
        kernel: One of `KERNELS`.
        labellings: (n, 1 + P) from `permute_labels`.
        patients: (n,).
        runs: Folds of one or several repeats.
        classes: Number of classes K.
    """
    tally = _Tally(runs, classes, labellings)
    predicted, probabilities = [], []
    for run in runs:
        kernels = KERNELS[kernel](features[run.train], features[run.test])
        preds = classifier.classify(kernels, labellings[run.train], patients[run.train], classes)
        tally.add(run, preds.predicted)
        predicted.append(preds.predicted[:, 0])
        probabilities.append(preds.probabilities)
    return Trial(tally.reached(), predicted, probabilities)


def nearest(features: Features, labellings: IntArray, runs: Sequence[Run], classes: int) -> FloatArray:
    """(1 + P,) balanced accuracy of the label of the nearest training image.

    The classifiers of probes choose their penalty by leave-one-patient-out, so they do not memorise patients. This one
    only memorises: with permuted labels it is better than chance only where the nearest image is of the same patient,
    which never happens where the splits do not leak.
    """
    tally = _Tally(runs, classes, labellings)
    for run in runs:
        inside, outside = classifier.standardise(features[run.train], features[run.test])
        distances = (inside**2).sum(axis=1) - 2 * outside @ inside.T
        tally.add(run, labellings[run.train[distances.argmin(axis=1)]])
    return tally.reached()


class _Tally:
    """Counts correct predictions by repeat, class and labelling."""

    def __init__(self, runs: Sequence[Run], classes: int, labellings: IntArray) -> None:
        self.repeats = list(dict.fromkeys(run.repeat for run in runs))
        self.labellings = labellings
        self.hits, self.totals = (np.zeros((len(self.repeats), classes, labellings.shape[1])) for _ in range(2))

    def add(self, run: Run, predicted: IntArray) -> None:
        truth, repeat = self.labellings[run.test], self.repeats.index(run.repeat)
        for k in range(self.hits.shape[1]):
            self.totals[repeat, k] += (truth == k).sum(axis=0)
            self.hits[repeat, k] += ((truth == k) & (predicted == k)).sum(axis=0)

    def reached(self) -> FloatArray:
        return mean_defined(mean_defined(divide(self.hits, self.totals)))


def level_of(trials: Sequence[Trial], share: float = SHARE) -> float:
    """The level below which the best of several probes stays in a share of the permutations."""
    largest = np.max([trial.reached[1:] for trial in trials], axis=0)
    return float(np.quantile(largest, share, method="higher"))
