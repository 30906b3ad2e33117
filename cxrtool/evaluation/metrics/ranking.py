"""Metrics of scores within one run: area under the ROC curve and average precision, and the curves themselves.

Areas take weights, an (images, resamples) array, so that 2,000 resamples need a few cumulative sums instead of 2,000
sorts, which no library offers. The curves of one run are those of scikit-learn. Scores of different runs are never
pooled: offsets between models alone can lower the area (see `cxrtool.evaluation.metrics.estimates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, divide


@dataclass(frozen=True)
class Ranking:
    """Images of one run in descending order of the score, prepared for any number of weightings.

    Attributes:
        order: (n,) row indices, highest score first.
        starts: (g,) indices into `order` at which a new score begins; g < n where scores tie.
        positive: (n, 1) 1.0 where the image, in the order of `order`, is of the class.
    """

    order: IntArray
    starts: IntArray
    positive: FloatArray

    @classmethod
    def of(cls, score: FloatArray, positive: NDArray[np.bool_]) -> Ranking:
        """Order the images of one run.

        Args:
            score: (n,) any real numbers, higher = more likely of the class.
            positive: (n,) whether the image is of the class.
        """
        order = np.argsort(-score, kind="stable")
        falling = score[order]
        starts = np.flatnonzero(np.concatenate(([True], falling[1:] != falling[:-1])))
        return cls(order, starts, positive[order, None].astype(np.float64))

    def _cumulate(self, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        ordered = weights[self.order]
        hits = ordered * self.positive
        misses = ordered - hits
        if len(self.starts) < len(self.order):
            hits = np.add.reduceat(hits, self.starts, axis=0)
            misses = np.add.reduceat(misses, self.starts, axis=0)
        return hits, misses, hits.cumsum(axis=0), misses.cumsum(axis=0)

    def areas(self, weights: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """Area under the ROC curve (ties count one half) and average precision of every weighting.

        Average precision is the sum of the steps in recall times the precision there, without interpolation, as
        scikit-learn defines it.

        Args:
            weights: (n, B) how often each image counts, in the order of the rows given to `of`; with the type of the
                counts of resamples this takes half the memory.

        Returns:
            Two (B,) arrays in [0, 1]; NaN where the class, or the rest, is absent.
        """
        members, begin, end, earlier, found_at = self._positives
        whole = np.zeros((len(self.order) + 1, weights.shape[1]), _sum_type(weights))
        np.cumsum(weights[self.order], axis=0, out=whole[1:])
        hits = weights[self.order[members]].astype(np.float64)
        sums = np.concatenate([np.zeros((1, weights.shape[1])), hits.cumsum(axis=0)])
        positives, negatives = sums[-1], whole[-1] - sums[-1]
        found, predicted = sums[found_at], whole[end].astype(np.float64)
        below = negatives - (predicted - found)
        if len(self.starts) < len(self.order):
            below += 0.5 * ((predicted - found) - (whole[begin] - sums[earlier]))
        auc = divide((hits * below).sum(axis=0), positives * negatives)
        precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
        steps = (hits * precision).sum(axis=0)
        return auc, divide(steps, np.where(negatives > 0, positives, 0.0))

    @cached_property
    def _positives(self) -> tuple[IntArray, ...]:
        """The places in `order` of the images of the class, of the begin and end of their scores, and counts.

        The last two arrays are how many images of the class are before the begin and before the end.
        """
        members = np.flatnonzero(self.positive[:, 0])
        group = np.searchsorted(self.starts, members, side="right") - 1
        begin, end = self.starts[group], np.append(self.starts[1:], len(self.order))[group]
        return members, begin, end, np.searchsorted(members, begin), np.searchsorted(members, end)

    def reached(self) -> tuple[FloatArray, FloatArray]:
        """How many images of the class, and of the rest, have at least the score of each image.

        Returns:
            Two (n,) arrays, in the order of the rows given to `of`.
        """
        _, _, found, false = self._cumulate(np.ones((len(self.order), 1)))
        sizes = np.diff(self.starts, append=len(self.order))
        counts = np.empty((2, len(self.order)))
        counts[:, self.order] = [np.repeat(part[:, 0], sizes) for part in (found, false)]
        return counts[0], counts[1]

    def influence(self) -> tuple[FloatArray, FloatArray]:
        """How much each image moves both areas: their derivatives with respect to its weight, all weights being 1.

        Returns:
            Two (n,) arrays, in the order of the rows given to `of`, with sum 0; NaN where the area is.
        """
        hits, misses, found, false = (part[:, 0] for part in self._cumulate(np.ones((len(self.order), 1))))
        positives, negatives = found[-1], false[-1]
        if not positives or not negatives:
            nothing = np.full(len(self.order), np.nan)
            return nothing, nothing
        above = (negatives - false + 0.5 * misses) / negatives
        below = (found - 0.5 * hits) / positives
        auc = float(hits @ above) / positives
        precision = found / (found + false)
        area = float(hits @ precision) / positives
        # An image changes the precision at its own score and at every lower one.
        slope = hits / (found + false) ** 2
        of_hit = precision + (slope * false)[::-1].cumsum()[::-1] - area
        of_miss = -(slope * found)[::-1].cumsum()[::-1]
        sizes = np.diff(self.starts, append=len(self.order))
        moved = []
        of_auc = (above - auc) / positives, (below - auc) / negatives
        for one, other in (of_auc, (of_hit / positives, of_miss / positives)):
            rows = np.empty(len(self.order))
            rows[self.order] = np.where(self.positive[:, 0] > 0, np.repeat(one, sizes), np.repeat(other, sizes))
            moved.append(rows)
        return moved[0], moved[1]

    def curve(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """False positive rate, true positive rate (= recall) and precision at every distinct score, highest first.

        Returns:
            Three (g,) arrays; NaN throughout where a rate is undefined.
        """
        from sklearn.metrics import precision_recall_curve, roc_curve

        positive = self.positive[:, 0]
        if positive.min() == positive.max():
            return tuple(np.full(len(self.starts), np.nan) for _ in range(3))  # type: ignore[return-value]
        # Ranks among the distinct scores give the same curves as the scores.
        falling = -np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.order)))
        false_rate, true_rate, _ = roc_curve(positive, falling, drop_intermediate=False)
        precision, _, _ = precision_recall_curve(positive, falling)
        # scikit-learn adds a point at (0, 0), and returns precision from the lowest score up.
        return false_rate[1:], true_rate[1:], precision[-2::-1]

    def sensitivities(self, weights: FloatArray, grid: FloatArray) -> FloatArray:
        """True positive rates (m, B) of the ROC curve of every weighting at false positive rates, as in `mean_roc`.

        Args:
            weights: (n, B) how often each image counts, in the order of the rows given to `of`.
            grid: (m,) rising rates in [0, 1].

        Returns:
            NaN where the class, or the rest, is absent.
        """
        _, _, found, false = self._cumulate(weights)
        zero, one = np.zeros((1, weights.shape[1])), np.ones((1, weights.shape[1]))
        x = np.concatenate([zero, divide(false, np.broadcast_to(false[-1], false.shape)), one])
        y = np.concatenate([zero, divide(found, np.broadcast_to(found[-1], found.shape)), one])
        upper = _positions(x, grid, "right") - 1
        after = np.minimum(upper + 1, len(x) - 1)
        x_low, x_high = np.take_along_axis(x, upper, 0), np.take_along_axis(x, after, 0)
        y_low, y_high = np.take_along_axis(y, upper, 0), np.take_along_axis(y, after, 0)
        share = np.divide(grid[:, None] - x_low, x_high - x_low, out=np.zeros_like(x_low), where=x_high > x_low)
        rates: FloatArray = np.where(np.isnan(x[-2] + y[-2]), np.nan, y_low + share * (y_high - y_low))
        return rates

    def precisions(self, weights: FloatArray, grid: FloatArray) -> FloatArray:
        """Precisions (m, B) of every weighting at recalls, as in `mean_precision`.

        Args:
            weights: (n, B) how often each image counts, in the order of the rows given to `of`.
            grid: (m,) rising recalls in (0, 1].

        Returns:
            NaN where the class, or the rest, is absent.
        """
        _, _, found, false = self._cumulate(weights)
        recall = divide(found, np.broadcast_to(found[-1], found.shape))
        reached = np.minimum(_positions(recall, grid - 1e-12, "left"), len(recall) - 1)
        hits, misses = np.take_along_axis(found, reached, 0), np.take_along_axis(false, reached, 0)
        both = (found[-1] > 0) & (false[-1] > 0)
        precision: FloatArray = np.where(both, divide(hits, hits + misses), np.nan)
        return precision


def _sum_type(weights: NDArray[Any]) -> type[np.number[Any]]:
    """Counts of resamples are added as whole numbers, in half the memory."""
    return np.int32 if weights.dtype.kind == "u" else np.float64


def _positions(columns: FloatArray, grid: FloatArray, side: Literal["left", "right"]) -> IntArray:
    """`np.searchsorted` of a grid (m,) in every column of (g, B) rising values in [0, 1]: (m, B) indices."""
    length, count = columns.shape
    # One sorted array of all columns, each 2 above the one before; undefined columns sort like zeros.
    offsets = 2.0 * np.arange(count)
    flat = (np.nan_to_num(columns) + offsets).T.ravel()
    found = np.searchsorted(flat, (grid[:, None] + offsets).ravel(), side=side).reshape(len(grid), count)
    return np.asarray(found - length * np.arange(count), np.intp)


def mean_roc(curves: list[tuple[FloatArray, FloatArray]], grid: FloatArray) -> FloatArray:
    """Mean true positive rate (m,) of ROC curves at false positive rates (vertical averaging, Fawcett 2006).

    Where a curve rises vertically, its highest value is used.

    Args:
        curves: (false positive rate, true positive rate) of each run.
        grid: (m,) rising rates in [0, 1].
    """
    total = np.zeros_like(grid)
    for false_rate, true_rate in curves:
        x = np.concatenate(([0.0], false_rate, [1.0]))
        y = np.concatenate(([0.0], true_rate, [1.0]))
        upper = np.searchsorted(x, grid, side="right") - 1
        after = np.minimum(upper + 1, len(x) - 1)
        share = np.divide(grid - x[upper], x[after] - x[upper], out=np.zeros_like(grid), where=x[after] > x[upper])
        total += y[upper] + share * (y[after] - y[upper])
    return total / max(len(curves), 1)


def mean_precision(curves: list[tuple[FloatArray, FloatArray]], grid: FloatArray) -> FloatArray:
    """Mean precision (m,) of curves at given recalls, each curve as the steps that average precision sums.

    Args:
        curves: (recall, precision) of each run, from `Ranking.curve`.
        grid: (m,) rising recalls in [0, 1].
    """
    total = np.zeros_like(grid)
    for recall, precision in curves:
        # After rounding, the last recall may be slightly below 1.
        reached = np.minimum(np.searchsorted(recall, grid - 1e-12, side="left"), len(recall) - 1)
        total += precision[reached]
    return total / max(len(curves), 1)
