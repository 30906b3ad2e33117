"""Means over images, with an interval over patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cxrtool.data.splitting.grouping import group_images
from cxrtool.data.tables.views import RowView
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.influence import ENOUGH_PATIENTS, Error, standard_error
from cxrtool.evaluation.resampling.intervals import (
    RESAMPLES,
    Measure,
    draw_patients,
    measure,
    method_of,
)

CELLS_AT_ONCE = 2_000_000


def mean_over_patients(
    values: Iterable[float],
    patients: Sequence[int] | Sequence[str] | IntArray,
    seed: int,
    *,
    proportion: bool,
    many: bool = False,
) -> Measure:
    """The mean of (n,) values, one an image, resampled by patient; the same `seed` draws the same patients.

    `proportion` means that the values count successes (0 or 1), for which Wilson's interval is used where resampling
    fails. Other values in [0, 1], such as shares of energy, are not proportions in this sense. `many`: they are a part
    of so many patients that intervals come from influence functions.
    """
    known = np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64)
    _, groups = np.unique(np.asarray(patients), return_inverse=True)
    sums, sizes = np.bincount(groups, known), np.bincount(groups)
    mean, strata = float(known.mean()), np.zeros(len(sizes), np.intp)
    replicates: FloatArray | Error
    if influence := many and len(sizes) >= ENOUGH_PATIENTS:
        replicates = Error(float(standard_error((sums - mean * sizes) / len(known), strata)))
    else:
        drawn = draw_patients(strata, RESAMPLES, np.random.default_rng(seed))
        step = max(1, CELLS_AT_ONCE // len(sizes))
        parts = (drawn[:, begin : begin + step].astype(np.float64) for begin in range(0, RESAMPLES, step))
        replicates = np.concatenate([(sums @ part) / (sizes @ part) for part in parts])
    method = method_of(by_patient=True, by_influence=influence)
    return measure(mean, replicates, patients=len(sizes), proportion=proportion, method=method)


def mean_of_images(rows: Sequence[RowView], values: Iterable[float], seed: int, *, proportion: bool) -> dict[str, Any]:
    """`mean_over_patients` of the rows of a manifest as JSON, with the numbers of images and patients."""
    patients = group_images(rows)
    figure = mean_over_patients(values, patients, seed, proportion=proportion)
    return {**figure.as_json(), "images": len(rows), "patients": len(set(patients))}
