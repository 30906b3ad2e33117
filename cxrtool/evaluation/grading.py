"""From the opaque shares of the lungs to the score that a rater gives: a monotone map, with an interval.

A region (a lung, or one of six zones) whose share is s has g(s) points; g never falls, is the same in all regions, and
is a line between a few knots. A score is the sum of its regions. g is fitted with slopes of at least 0 to totals
(extents are rated so) or to each region (Brixia scores), by Huber's loss (1964): errors above a fraction of a point
count in proportion, so that an estimate is near the median of the ratings. The interval of an image is that of CV+
(Barber, Candès, Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+", section 3): the fits that left a
patient out, each with the error that it made there. It is a prediction interval of one rating, not of a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrtool.data.tables.missing import missing_words
from cxrtool.data.tables.numbers import decimal
from cxrtool.errors import InputError
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.scales import SCALES
from cxrtool.imaging.regions import PREFIX

KNOTS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0)
"""Shares between which g is a line; denser where images are."""

RIDGE = 0.02
"""Penalty on the slopes' differences from their mean, for each image: few images reach the last knots."""

NEAR = 0.3
"""Points of error up to which the loss is a square. In cross-validation the mean absolute error was below that of least
squares: by 0.02 of 8 for the extents of 110 radiographs, by 0.12 of 18 for the Brixia scores of 76."""

PASSES = 20
"""Least squares with new weights, after which the points of neither set change in the third decimal."""

FOLDS = 10
COVERAGE = 0.9

BLOCK = 4096
"""Images whose intervals are computed at a time."""


@dataclass(frozen=True)
class Grader:
    """A fitted map.

    Attributes:
        scale: A key of `SCALES`.
        points: (K,) the value of g at each knot.
        folds: (F, K) the same, of the fits that left a fold of patients out.
        errors: (n,) absolute error of the total of each image, by the fit that left it out.
        fold_of: (n,) which of `folds` that is.
    """

    scale: str
    points: FloatArray
    folds: FloatArray
    errors: FloatArray
    fold_of: IntArray

    def regions(self, shares: FloatArray, fold: int | None = None) -> FloatArray:
        """Points of each region (n, R) for opaque shares (n, R) in [0, 1]; by the fit that left a fold out, if any."""
        return _points(shares, self.points if fold is None else self.folds[fold])

    def intervals(self, shares: FloatArray, fold: int | None = None) -> FloatArray:
        """Lower and upper end (n, 2) of the interval that holds a rater's total with a probability of about 0.9.

        Of images that the fits but for that of `fold` saw, it is what those would get which are like them and new: by
        that fit alone, with the errors of the other folds' images.
        """
        others = np.ones(len(self.errors), np.bool_) if fold is None else self.fold_of != fold
        errors, highest = self.errors[others], SCALES[self.scale].highest
        count, fits = len(errors), self.fold_of[others] if fold is None else np.full(len(errors), fold)
        # The ranks of CV+; with few images the interval is the whole scale.
        rank = math.floor((1 - COVERAGE) * (count + 1))
        ends: FloatArray = np.tile([0.0, float(highest)], (len(shares), 1))
        # In blocks, because each image is compared with all that the fit saw.
        for start in range(0, len(shares) if rank else 0, BLOCK):
            own = slice(start, start + BLOCK)
            by_fold = np.stack([_points(shares[own], points).sum(1) for points in self.folds])
            centre = by_fold[fits]
            ends[own, 0] = np.sort(centre - errors[:, None], 0)[rank - 1]
            ends[own, 1] = np.sort(centre + errors[:, None], 0)[count - rank]
        ends.clip(0, highest, out=ends)
        return ends

    def as_json(self) -> dict[str, Any]:
        """For `grade.json`."""
        return {
            "scale": self.scale,
            "knots": list(KNOTS),
            "points": _rounded(self.points),
            "folds": [_rounded(points) for points in self.folds],
            "errors": _rounded(self.errors),
            "fold_of": [int(fold) for fold in self.fold_of],
        }

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Grader:
        """Read what `as_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            points, folds = np.array(content["points"], np.float64), np.array(content["folds"], np.float64)
            errors, fold_of = np.array(content["errors"], np.float64), np.array(content["fold_of"], np.intp)
            scale = SCALES[content["scale"]]
            if tuple(content["knots"]) != KNOTS:
                raise ValueError("other knots")
        except (KeyError, TypeError) as error:
            raise ValueError(f"{error!r}") from error
        shapes = points.shape == (len(KNOTS),) and folds.shape[1:] == (len(KNOTS),) and errors.shape == fold_of.shape
        if not shapes or not len(errors) or not ((fold_of >= 0) & (fold_of < len(folds))).all():
            raise ValueError("numbers of other shapes")
        every = np.vstack([points[None], folds])
        rising = (np.diff(every, axis=1) >= 0).all() and (every >= 0).all() and (every <= scale.top).all()
        if not rising or not (errors >= 0).all() or not np.isfinite(errors).all():
            raise ValueError(f"points that do not rise from 0 to at most {scale.top}")
        return cls(content["scale"], points, folds, errors, fold_of)


def fit_grader(scale: str, shares: FloatArray, scores: FloatArray, patients: IntArray, seed: int) -> Grader:
    """Fit the map of a scale.

    Args:
        scale: A key of `SCALES`.
        shares: (n, R) opaque shares of the regions, in [0, 1].
        scores: (n,) totals, or (n, R) points of each region where raters give them.
        patients: (n,) the patient of each image; no patient is in two folds.
        seed: Of the folds.

    Raises:
        InputError: There are fewer than `FOLDS` patients.
    """
    _, groups = np.unique(patients, return_inverse=True)
    count = int(groups.max()) + 1
    if count < FOLDS:
        raise InputError(f"expected rated images of at least {FOLDS} patients, found {count}")
    fold_of = np.random.default_rng(seed).permutation(count)[groups] % FOLDS
    folds = [_fit(scale, shares[fold_of != fold], scores[fold_of != fold]) for fold in range(FOLDS)]
    totals = scores if scores.ndim == 1 else scores.sum(1)
    found = np.array([_points(shares[i : i + 1], folds[fold_of[i]]).sum() for i in range(len(shares))])
    return Grader(scale, _fit(scale, shares, scores), np.array(folds), np.abs(found - totals), fold_of)


def _fit(scale: str, shares: FloatArray, scores: FloatArray) -> FloatArray:
    """Values of g at the knots (K,)."""
    from scipy.optimize import lsq_linear

    top = SCALES[scale].top
    # A column for g(0), and one for each rise between two knots.
    rises = np.concatenate([np.ones_like(shares)[..., None], _parts(shares)], -1)
    design = rises.sum(1) if scores.ndim == 1 else rises.reshape(-1, rises.shape[-1])
    widths = np.diff(KNOTS)
    smooth = np.zeros((len(widths) - 1, design.shape[1]))
    for k in range(len(widths) - 1):
        smooth[k, k + 1], smooth[k, k + 2] = 1 / widths[k], -1 / widths[k + 1]
    weight = math.sqrt(RIDGE * len(design)) * np.sqrt(widths[:-1] * widths[1:])
    smooth = weight[:, None] * smooth
    wanted = scores.ravel()
    trust = np.ones_like(wanted)
    for _ in range(PASSES):
        root = np.sqrt(trust / trust.mean())
        matrix = np.vstack([root[:, None] * design, smooth])
        found = lsq_linear(matrix, np.concatenate([root * wanted, np.zeros(len(smooth))]), bounds=(0, np.inf)).x
        trust = 1 / np.maximum(np.abs(design @ found - wanted), NEAR)
    points: FloatArray = np.minimum(np.cumsum(found), top)
    return points


def _parts(shares: FloatArray) -> FloatArray:
    """How much of each rise between two knots a share has passed: (..., K - 1) in [0, 1]."""
    knots = np.array(KNOTS)
    passed: FloatArray = np.clip((shares[..., None] - knots[:-1]) / np.diff(knots), 0, 1)
    return passed


def _points(shares: FloatArray, points: FloatArray) -> FloatArray:
    found: FloatArray = np.interp(shares, KNOTS, points)
    return found


def _rounded(values: FloatArray) -> list[float]:
    return [round(float(value), 6) for value in values]


def shares_of(
    rows: Sequence[Mapping[str, str]], scale: str, place: Callable[[int], str] = "row {}".format
) -> tuple[FloatArray, list[int]]:
    """Opaque shares (m, R) of the rows that have all of them, and the indices of these rows.

    Args:
        rows: With the columns of `segment --opacities`.
        scale: A key of `SCALES`.
        place: Names the row with an index, for errors.

    Raises:
        InputError: A cell is no share from 0 to 1, nor a word for a missing value.
    """
    shares, kept = [], []
    names = [PREFIX + region for region in SCALES[scale].regions]
    missing = missing_words({row.get(name, "") for row in rows for name in names}) | {""}
    for index, row in enumerate(rows):
        cells = [row.get(name, "").strip() for name in names]
        if any(cell.casefold() in missing for cell in cells):
            continue
        found = []
        for name, cell in zip(names, cells, strict=True):
            share = decimal(cell)
            if share is None or not 0 <= share <= 1:
                raise InputError(f"{place(index)}: expected a share from 0 to 1 in {name}, found '{cell}'")
            found.append(share)
        shares.append(found)
        kept.append(index)
    return np.array(shares, np.float64).reshape(len(shares), len(SCALES[scale].regions)), kept
