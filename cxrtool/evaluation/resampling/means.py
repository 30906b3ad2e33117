"""The mean of one number an image, with an interval over patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cxrtool.data.splitting.grouping import group_images
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients, measure


def mean_of_images(
    rows: Sequence[dict[str, Any]], values: Iterable[float], seed: int, *, proportion: bool
) -> dict[str, Any]:
    """A mean over images, resampled by patient.

    Args:
        rows: Of a manifest, one an image: they tell whose it is.
        values: One number a row.
        seed: Of the resamples.
        proportion: Whether the numbers count successes (0 or 1), for which Wilson's interval stands in where resampling
            fails; a share of something else is no such count.

    Returns:
        A figure as in `metrics.json`, with the numbers of images and patients.
    """
    known = np.array(list(values))
    groups = np.array(group_images(rows))
    sums, sizes = np.bincount(groups, known), np.bincount(groups)
    drawn = draw_patients(np.zeros(len(sums), np.intp), RESAMPLES, np.random.default_rng(seed)).astype(np.float64)
    figure = measure(
        float(known.mean()), (sums @ drawn) / (sizes @ drawn), patients=len(sums), proportion=proportion
    )  # fmt: skip
    return {**figure.as_json(), "images": len(rows), "patients": len(sums)}
