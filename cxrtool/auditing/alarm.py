"""What chance alone would reach: the same classifiers on labels dealt anew among the patients.

A labelling is dealt to whole patients and stays the same in all repeats and folds, in training and in test, so that a
set whose pictures say nothing of its labels is one draw like the others (Ojala & Garriga 2010, "Permutation Tests for
Studying Classifier Performance", test 1). The level above which an alarm is raised is had from the largest of several
probes in each labelling, so that looking at several does not raise the chance of a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrtool.auditing import classifier
from cxrtool.auditing.classifier import KERNELS, Features
from cxrtool.auditing.inputs import Fold, Pictures
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide, mean_defined

PERMUTATIONS = 200
SHARE = 0.99
"""Of the labellings dealt by chance that stay below the level."""


@dataclass(frozen=True)
class Run:
    """One fold as a probe is trained and tested in it.

    Attributes:
        repeat: As it stands in the splits.
        fold: As it stands in the splits.
        train: Pictures that it is trained on: those of `train` alone, as the model's.
        test: Pictures that it is asked about.
        left_out: Training images beyond `classifier.MOST`, of which it made no use.
    """

    repeat: str
    fold: str
    train: IntArray
    test: IntArray
    left_out: int = 0


@dataclass(frozen=True)
class Trial:
    """What a probe says in every run.

    Attributes:
        reached: (1 + P,) balanced accuracy with the true labels, then with each labelling dealt by chance.
        predicted: For each run (t,) the class.
        probabilities: For each run (t, K).
    """

    reached: FloatArray
    predicted: list[IntArray]
    probabilities: list[FloatArray]

    @property
    def p(self) -> float:
        """Share of the labellings, the true one among them, in which it reaches as much."""
        return float((self.reached >= self.reached[0] - 1e-12).mean())


def runs_of(pictures: Pictures, folds: Sequence[Fold], seed: int) -> list[Run]:
    """The folds in terms of the pictures that could be read; folds without training or test images are left out."""
    patients = pictures.patients
    found = []
    for number, fold in enumerate(folds):
        train, test = (pictures.at(fold.subsets.get(name, ())) for name in ("train", "test"))
        if not len(train) or not len(test):
            continue
        found.append(sampled(fold.repeat, fold.fold, train, test, patients, [seed, number]))
    return found


def sampled(repeat: str, fold: str, train: IntArray, test: IntArray, patients: IntArray, seed: Sequence[int]) -> Run:
    """A run that trains on some pictures, or on a sample by patient where these are too many, and tests on others."""
    kept = classifier.sample(patients[train], np.random.default_rng(list(seed)))
    return Run(repeat, fold, train[kept], test, len(train) - len(kept))


def deal(labels: IntArray, patients: IntArray, count: int, seed: int) -> IntArray:
    """The true labels, then `count` labellings in which the patients have exchanged theirs.

    The images of a patient keep one label where they had one; a patient of several labels hands them on in their order,
    over and over where the other has more images.

    Args:
        labels: (n,) class numbers; an image without a class has -1 and is nobody's to exchange.
        patients: (n,).
        count: P.
        seed: Of the draws.

    Returns:
        (n, 1 + P).
    """
    known = np.flatnonzero(labels >= 0)
    dealt = np.repeat(labels[:, None], count + 1, axis=1)
    _, owner, sizes = np.unique(patients[known], return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    begins = np.cumsum(sizes) - sizes
    turn = np.empty(len(known), np.intp)
    turn[order] = np.arange(len(known)) - np.repeat(begins, sizes)
    own = labels[known][order]
    rng = np.random.default_rng(seed)
    for column in range(1, count + 1):
        giver = rng.permutation(len(sizes))[owner]
        dealt[known, column] = own[begins[giver] + turn % sizes[giver]]
    return dealt


def attempt(
    features: Features, kernel: str, labellings: IntArray, patients: IntArray, runs: Sequence[Run], classes: int
) -> Trial:
    """Train and ask in every run, for every labelling.

    Args:
        features: (n, d).
        kernel: One of `KERNELS`.
        labellings: (n, 1 + P) from `deal`.
        patients: (n,).
        runs: Folds of one or several repeats.
        classes: K.
    """
    tally = _Tally(runs, classes, labellings)
    predicted, probabilities = [], []
    for run in runs:
        kernels = KERNELS[kernel](features[run.train], features[run.test])
        said = classifier.classify(kernels, labellings[run.train], patients[run.train], classes)
        tally.add(run, said.predicted)
        predicted.append(said.predicted[:, 0])
        probabilities.append(said.probabilities)
    return Trial(tally.reached(), predicted, probabilities)


def nearest(features: Features, labellings: IntArray, runs: Sequence[Run], classes: int) -> FloatArray:
    """(1 + P,) balanced accuracy of the label of the nearest training image.

    The classifiers of probes leave each patient out when they choose how much to trust, so they learn nobody by heart.
    This one does nothing else: with labels dealt by chance it is right as often as the nearest image is of the same
    patient, which in honest splits it never is.
    """
    tally = _Tally(runs, classes, labellings)
    for run in runs:
        inside, outside = classifier.standardise(features[run.train], features[run.test])
        apart = (inside**2).sum(axis=1) - 2 * outside @ inside.T
        tally.add(run, labellings[run.train[apart.argmin(axis=1)]])
    return tally.reached()


class _Tally:
    """Counts what is right, by repeat, class and labelling."""

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
    """What the best of several probes stays below in a share of the labellings dealt by chance."""
    largest = np.max([trial.reached[1:] for trial in trials], axis=0)
    return float(np.quantile(largest, share, method="higher"))
