"""One classifier for all probes: kernel ridge regression on class membership, then discriminant analysis.

Regression on the indicators of the classes followed by a discriminant analysis of the fitted values is penalised
discriminant analysis (Hastie, Buja & Tibshirani 1995, "Penalized Discriminant Analysis", section 3). Two things are
added. The penalty is chosen by the squared error of leave-one-patient-out cross-validation, which needs no second fit
(block form of Allen's PRESS, 1974). The means and the covariance of the discriminant analysis are those of the
left-out values, as they will be for new images.

Everything is in closed form. What depends on the images is computed once, and each further labelling of the same images
costs a matrix product. This makes a permutation test of every probe in every fold affordable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

Features = NDArray[np.floating]
"""(n, d), one row per image."""

PENALTIES = tuple(10.0**power for power in np.arange(-3.0, 2.51, 0.5))
"""Relative to the mean eigenvalue of the kernel."""

WIDTHS = (0.5, 1.0, 2.0)
"""Widths of a radial kernel, relative to the median distance between training images."""

MOST = 2000
"""Most training images of a kernel; of more, a sample by patient is drawn. Time grows with the cube of their number:
with 200 labellings a fold takes 0.1 s for 300, 4 s for 1,500 and 22 s for 3,000 on one processor."""

LEAST_SPREAD = 1 / 1024
"""Standard deviation of a feature (of range about 1) below which its variation is rounding error."""

FARTHEST = 5.0
"""Standard deviations at which values are clipped, so that one odd pixel does not outweigh an image."""

_TINY = 1e-9


@dataclass(frozen=True)
class Kernel:
    """Similarity of images, centred on the training images: (n, n) of these with one another, (t, n) of test images."""

    inside: FloatArray
    outside: FloatArray


@dataclass(frozen=True)
class Preds:
    """The predictions of a classifier for the test images.

    The class index (t, P) with equal priors for each of P labellings; the probabilities (t, K) for the first labelling
    with the priors of the training images.
    """

    predicted: IntArray
    probabilities: FloatArray


def standardise(training: Features, test: Features) -> tuple[Features, Features]:
    """Scale (n, d) and (t, d) features to mean 0 and SD 1 in training, and drop those that never vary."""
    spread = training.std(axis=0, dtype=np.float64)
    kept = spread > LEAST_SPREAD
    mean = training[:, kept].mean(axis=0, dtype=np.float64).astype(training.dtype)
    factor = (1 / spread[kept]).astype(training.dtype)
    inside, outside = ((part[:, kept] - mean) * factor for part in (training, test))
    return np.clip(inside, -FARTHEST, FARTHEST), np.clip(outside, -FARTHEST, FARTHEST)


def linear(training: Features, test: Features) -> list[Kernel]:
    """The kernel of a linear classifier on standardised features."""
    inside, outside = standardise(training, test)
    return [_centred((inside @ inside.T).astype(np.float64), (outside @ inside.T).astype(np.float64))]


def radial(training: Features, test: Features) -> list[Kernel]:
    """Gaussian kernels of several widths on standardised features: for few features with any relation to the class."""
    inside, outside = (part.astype(np.float64) for part in standardise(training, test))
    square, other = _distances(inside, inside), _distances(outside, inside)
    distances = square[np.triu_indices(len(square), 1)]
    median = float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0
    return [
        _centred(np.exp(-square / (width * width * median)), np.exp(-other / (width * width * median)))
        for width in WIDTHS
    ]


KERNELS: dict[str, Callable[[Features, Features], list[Kernel]]] = {"linear": linear, "radial": radial}
"""Linear for images, radial for tables of a few features."""


def classify(kernels: Sequence[Kernel], labels: IntArray, patients: IntArray, classes: int) -> Preds:
    """Fit every labelling (n, P) of the training images, of K >= 2 classes, and predict the test images.

    Of the kernels the best is chosen for each labelling separately. The images of a patient are left out together.
    """
    n, labellings = labels.shape
    # The indicator of the last class follows from the others and adds nothing.
    membership = (labels[:, None, :] == np.arange(classes - 1)[:, None]).astype(np.float64)
    centred = (membership - membership.mean(axis=0)).reshape(n, -1)
    blocks = _blocks(patients)
    best = np.full(labellings, np.inf)
    unseen = np.zeros((n, classes - 1, labellings))
    tested = np.zeros((len(kernels[0].outside), classes - 1, labellings))
    for kernel in kernels:
        scale = np.trace(kernel.inside) / n
        if scale <= _TINY:
            continue
        values, vectors = np.linalg.eigh(kernel.inside / scale)
        values = np.maximum(values, 0.0)
        loadings, projected = vectors.T @ centred, (kernel.outside / scale) @ vectors
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
            tested[..., better] = np.tensordot(projected, chosen, axes=1)
    return _discriminate(unseen, tested, labels, classes)


def sample(patients: IntArray, rng: np.random.Generator, most: int = MOST) -> IntArray:
    """Indices of the images of randomly drawn patients, at most `most` images; all where there are no more."""
    if len(patients) <= most:
        return np.arange(len(patients), dtype=np.intp)
    names, owner, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    taken = np.zeros(len(names), np.bool_)
    taken[order[np.cumsum(counts[order]) <= most]] = True
    return np.flatnonzero(taken[owner]).astype(np.intp)


def _distances(one: FloatArray, other: FloatArray) -> FloatArray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    distances: FloatArray = np.maximum(squared, 0.0)
    # Equal rows must be at distance 0, not at a rounding error.
    distances[distances < _TINY * max(one.shape[1], 1)] = 0.0
    return distances


def _centred(inside: FloatArray, outside: FloatArray) -> Kernel:
    column, whole = inside.mean(axis=0), inside.mean()
    return Kernel(
        inside - column - column[:, None] + whole, outside - column - outside.mean(axis=1, keepdims=True) + whole
    )


def _blocks(patients: IntArray) -> list[IntArray]:
    """(m, s) indices of the images of the m patients with s images each, for each s."""
    _, owner, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    begins = np.cumsum(counts) - counts
    return [
        order[begins[counts == size][:, None] + np.arange(size)].astype(np.intp) for size in np.unique(counts).tolist()
    ]


def _left_out(
    membership: FloatArray, residual: FloatArray, vectors: FloatArray, kept: FloatArray, blocks: Sequence[IntArray]
) -> FloatArray:
    """(n, T) leave-one-patient-out fitted values, less the mean membership.

    The mean is also that of the other patients. It is subtracted because what it lacks of a patient's own class would
    reveal that class. `residual` (n, T) is that of the fit to all images, `kept` (n,) shrinks each eigenvector.
    """
    n = len(membership)
    result = np.empty_like(residual)
    for indices in blocks:
        size = indices.shape[1]
        if size == 1:
            single = indices[:, 0]
            complement = 1 - 1 / n - (vectors[single] ** 2) @ kept
            correction = residual[single] / np.maximum(complement, _TINY)[:, None]
            result[single] = membership[single] * (1 + 1 / (n - 1)) - correction
            continue
        if size >= n:
            result[indices] = 0.0
            continue
        rows = vectors[indices]
        left = np.eye(size) * (1 + _TINY) - 1 / n - (rows * kept) @ rows.transpose(0, 2, 1)
        own = membership[indices]
        result[indices] = own + own.sum(axis=1, keepdims=True) / (n - size) - np.linalg.solve(left, residual[indices])
    return result


def _discriminate(unseen: FloatArray, tested: FloatArray, labels: IntArray, classes: int) -> Preds:
    """Discriminant analysis with one covariance for all classes, of values (n, K-1, P) and (t, K-1, P)."""
    n, axes = unseen.shape[:2]
    counts = np.stack([(labels == k).sum(axis=0) for k in range(classes)])
    sums = np.stack([np.einsum("ncp,np->cp", unseen, (labels == k).astype(np.float64)) for k in range(classes)])
    means = sums / np.maximum(counts, 1)[:, None, :]
    rest = unseen - np.take_along_axis(means, labels[:, None, :], axis=0)
    within = np.einsum("ncp,ndp->pcd", rest, rest) / max(n - classes, 1)
    within += np.eye(axes) * (_TINY * (1 + np.trace(within, axis1=1, axis2=2)))[:, None, None]
    weights = np.linalg.solve(within, means.transpose(2, 1, 0))
    offsets = 0.5 * np.einsum("kcp,pck->pk", means, weights)
    logits = np.einsum("tcp,pck->tkp", tested, weights) - offsets.T
    logits[:, counts == 0] = -np.inf
    first = logits[..., 0] + np.log(np.maximum(counts[:, 0], 1) / n)
    first = np.exp(first - first.max(axis=1, keepdims=True))
    predicted: IntArray = logits.argmax(axis=1).astype(np.intp)
    return Preds(predicted, first / first.sum(axis=1, keepdims=True))
