"""One classifier for all probes: kernel ridge on class membership, then discriminant analysis, in closed form.

Regression on the indicators of the classes followed by a discriminant analysis of the fitted values is penalised
discriminant analysis (Hastie, Buja & Tibshirani 1995, "Penalized Discriminant Analysis", section 3). Two things are
added. The penalty is chosen by the squared error with each patient left out, which needs no second fit (block form of
Allen's PRESS, 1974). And the discriminant's means and spread are those of the left-out values, so that they are what
new images will show.

All that depends on the pictures is done once; hundreds of labellings of the same images then cost a matrix product.
That is what makes a permutation test of every probe in every fold affordable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

Features = NDArray[np.floating]
"""One row an image."""

PENALTIES = tuple(10.0**power for power in np.arange(-3.0, 2.51, 0.5))
"""Relative to the mean eigenvalue of the kernel."""

WIDTHS = (0.5, 1.0, 2.0)
"""Of a radial kernel, relative to the median distance between training images."""

MOST = 2000
"""Training images of which a kernel is made; of more a sample by patient is drawn. Time grows with their cube: with 200
labellings a fold takes 0.1 s for 300, 4 s for 1,500 and 22 s for 3,000 on one processor."""

LEAST_SPREAD = 1 / 1024
"""Of a feature, whose range is about 1: below it everything is alike, and what differs is rounding."""

FARTHEST = 5.0
"""Standard deviations beyond which a value counts as that far: one odd pixel must not outweigh a picture."""

_TINY = 1e-9


@dataclass(frozen=True)
class Kernel:
    """How alike images are, centred on the training images.

    Attributes:
        inside: (n, n) of the training images with one another.
        outside: (t, n) of the images asked about with the training images.
    """

    inside: FloatArray
    outside: FloatArray


@dataclass(frozen=True)
class Answers:
    """What a classifier says of the images asked about.

    Attributes:
        predicted: (t, P) the class, all classes weighing the same, for each of P labellings.
        probabilities: (t, K) of the first labelling, each class weighing as in training.
    """

    predicted: IntArray
    probabilities: FloatArray


def standardise(training: Features, asked: Features) -> tuple[Features, Features]:
    """Bring every feature to mean 0 and standard deviation 1 in training, and leave out those that never vary.

    Args:
        training: (n, d).
        asked: (t, d).
    """
    spread = training.std(axis=0, dtype=np.float64)
    kept = spread > LEAST_SPREAD
    mean = training[:, kept].mean(axis=0, dtype=np.float64).astype(training.dtype)
    factor = (1 / spread[kept]).astype(training.dtype)
    near, far = ((part[:, kept] - mean) * factor for part in (training, asked))
    return np.clip(near, -FARTHEST, FARTHEST), np.clip(far, -FARTHEST, FARTHEST)


def linear(training: Features, asked: Features) -> list[Kernel]:
    """The kernel of a linear classifier on standardised features."""
    inside, outside = standardise(training, asked)
    return [_centred((inside @ inside.T).astype(np.float64), (outside @ inside.T).astype(np.float64))]


def radial(training: Features, asked: Features) -> list[Kernel]:
    """Gaussian kernels of several widths on standardised features: for few features of any relation to the class."""
    inside, outside = (part.astype(np.float64) for part in standardise(training, asked))
    square, other = _distances(inside, inside), _distances(outside, inside)
    apart = square[np.triu_indices(len(square), 1)]
    median = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    return [
        _centred(np.exp(-square / (width * width * median)), np.exp(-other / (width * width * median)))
        for width in WIDTHS
    ]


KERNELS: dict[str, Callable[[Features, Features], list[Kernel]]] = {"linear": linear, "radial": radial}
"""Linear for pictures, radial for tables of a few features."""


def classify(kernels: Sequence[Kernel], labels: IntArray, patients: IntArray, classes: int) -> Answers:
    """Fit every labelling and ask about the other images.

    Args:
        kernels: Of which the best is taken, for each labelling by itself.
        labels: (n, P) class of each training image in each of P labellings.
        patients: (n,) whose images they are: these are left out together.
        classes: Number of classes K, at least 2.
    """
    n, labellings = labels.shape
    # The last class is what the others leave: its indicator adds nothing.
    membership = (labels[:, None, :] == np.arange(classes - 1)[:, None]).astype(np.float64)
    centred = (membership - membership.mean(axis=0)).reshape(n, -1)
    blocks = _blocks(patients)
    best = np.full(labellings, np.inf)
    unseen = np.zeros((n, classes - 1, labellings))
    asked = np.zeros((len(kernels[0].outside), classes - 1, labellings))
    for kernel in kernels:
        scale = np.trace(kernel.inside) / n
        if scale <= _TINY:
            continue
        values, vectors = np.linalg.eigh(kernel.inside / scale)
        values = np.maximum(values, 0.0)
        loadings, way = vectors.T @ centred, (kernel.outside / scale) @ vectors
        for penalty in PENALTIES:
            kept = values / (values + penalty)
            residual = centred - vectors @ (kept[:, None] * loadings)
            left_out = _left_out(centred, residual, vectors, kept, blocks)
            error = ((centred - left_out) ** 2).reshape(n, -1, labellings).sum(axis=(0, 1))
            better = np.flatnonzero(error < best)
            if not len(better):
                continue
            best[better] = error[better]
            unseen[..., better] = left_out.reshape(unseen.shape)[..., better]
            chosen = (loadings / (values + penalty)[:, None]).reshape(unseen.shape)[..., better]
            asked[..., better] = np.tensordot(way, chosen, axes=1)
    return _discriminate(unseen, asked, labels, classes)


def sample(patients: IntArray, rng: np.random.Generator, most: int = MOST) -> IntArray:
    """Places of the images of as many patients, drawn by chance, as give at most so many images; all where they do."""
    if len(patients) <= most:
        return np.arange(len(patients), dtype=np.intp)
    names, place, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    taken = np.zeros(len(names), np.bool_)
    taken[order[np.cumsum(counts[order]) <= most]] = True
    return np.flatnonzero(taken[place]).astype(np.intp)


def _distances(one: FloatArray, other: FloatArray) -> FloatArray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    nearly: FloatArray = np.maximum(squared, 0.0)
    # What is equal must be at distance 0, not at that of a rounding error.
    nearly[nearly < _TINY * max(one.shape[1], 1)] = 0.0
    return nearly


def _centred(inside: FloatArray, outside: FloatArray) -> Kernel:
    column, whole = inside.mean(axis=0), inside.mean()
    return Kernel(
        inside - column - column[:, None] + whole, outside - column - outside.mean(axis=1, keepdims=True) + whole
    )


def _blocks(patients: IntArray) -> list[IntArray]:
    """(m, s) places of the m patients with s images each, for each s."""
    _, place, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    begins = np.cumsum(counts) - counts
    return [
        order[begins[counts == size][:, None] + np.arange(size)].astype(np.intp) for size in np.unique(counts).tolist()
    ]


def _left_out(
    membership: FloatArray, residual: FloatArray, vectors: FloatArray, kept: FloatArray, blocks: Sequence[IntArray]
) -> FloatArray:
    """(n, T) fitted values as they would be had each patient not been in training, less the mean membership.

    The mean is that of the others too, and what it lacks of a patient's own class would tell that class, were it not
    taken off.

    Args:
        membership: (n, T) centred.
        residual: (n, T) of the fit to all.
        vectors: (n, n) eigenvectors of the centred kernel.
        kept: (n,) share that the penalty leaves of each.
        blocks: Places of the images of each patient, from `_blocks`.
    """
    n = len(membership)
    result = np.empty_like(residual)
    for places in blocks:
        size = places.shape[1]
        if size == 1:
            one = places[:, 0]
            alone = 1 - 1 / n - (vectors[one] ** 2) @ kept
            gone = residual[one] / np.maximum(alone, _TINY)[:, None]
            result[one] = membership[one] * (1 + 1 / (n - 1)) - gone
            continue
        if size >= n:
            result[places] = 0.0
            continue
        rows = vectors[places]
        left = np.eye(size) * (1 + _TINY) - 1 / n - (rows * kept) @ rows.transpose(0, 2, 1)
        own = membership[places]
        result[places] = own + own.sum(axis=1, keepdims=True) / (n - size) - np.linalg.solve(left, residual[places])
    return result


def _discriminate(unseen: FloatArray, asked: FloatArray, labels: IntArray, classes: int) -> Answers:
    """Discriminant analysis with one spread for all classes.

    Args:
        unseen: (n, K-1, P) values of the training images, each had without its patient.
        asked: (t, K-1, P) values of the images asked about.
        labels: (n, P).
        classes: K.
    """
    n, axes = unseen.shape[:2]
    counts = np.stack([(labels == k).sum(axis=0) for k in range(classes)])
    sums = np.stack([np.einsum("ncp,np->cp", unseen, (labels == k).astype(np.float64)) for k in range(classes)])
    means = sums / np.maximum(counts, 1)[:, None, :]
    rest = unseen - np.take_along_axis(means, labels[:, None, :], axis=0)
    within = np.einsum("ncp,ndp->pcd", rest, rest) / max(n - classes, 1)
    within += np.eye(axes) * (_TINY * (1 + np.trace(within, axis1=1, axis2=2)))[:, None, None]
    weights = np.linalg.solve(within, means.transpose(2, 1, 0))
    offsets = 0.5 * np.einsum("kcp,pck->pk", means, weights)
    figures = np.einsum("tcp,pck->tkp", asked, weights) - offsets.T
    figures[:, counts == 0] = -np.inf
    first = figures[..., 0] + np.log(np.maximum(counts[:, 0], 1) / n)
    first = np.exp(first - first.max(axis=1, keepdims=True))
    predicted: IntArray = figures.argmax(axis=1).astype(np.intp)
    return Answers(predicted, first / first.sum(axis=1, keepdims=True))
