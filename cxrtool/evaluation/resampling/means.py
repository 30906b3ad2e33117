"""Means over images, with an interval over patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cxrtool.data.splitting.grouping import group_images
from cxrtool.evaluation.resampling.intervals import RESAMPLES, Measure, draw_patients, measure


def mean_over_patients(
    values: Iterable[float], patients: Sequence[int] | Sequence[str], seed: int, *, proportion: bool
) -> Measure:
    """The mean of (n,) values, one an image, resampled by patient; the same `seed` draws the same patients.

    `proportion` means that the values count successes (0 or 1), for which Wilson's interval is used where resampling
    fails. Other values in [0, 1], such as shares of energy, are not proportions in this sense.
    """
    known = np.array(list(values), np.float64)
    _, groups = np.unique(np.array(patients), return_inverse=True)
    sums, sizes = np.bincount(groups, known), np.bincount(groups)
    drawn = draw_patients(np.zeros(len(sizes), np.intp), RESAMPLES, np.random.default_rng(seed)).astype(np.float64)
    replicates = (sums @ drawn) / (sizes @ drawn)
    return measure(float(known.mean()), replicates, patients=len(sizes), proportion=proportion)


def mean_of_images(
    rows: Sequence[dict[str, Any]], values: Iterable[float], seed: int, *, proportion: bool
) -> dict[str, Any]:
    """`mean_over_patients` of the rows of a manifest as JSON, with the numbers of images and patients."""
    patients = group_images(rows)
    figure = mean_over_patients(values, patients, seed, proportion=proportion)
    return {**figure.as_json(), "images": len(rows), "patients": len(set(patients))}
