"""Counts of rows by kind in every run, observed and in each resample of patients, from which proportions follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.metrics.estimates import CELLS_AT_ONCE, FEWEST_AT_ONCE
from cxrtool.evaluation.resampling.influence import Error, covariance, gradients
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients
from cxrtool.evaluation.scores import Scores

NOT_COUNTED = -1


@dataclass(frozen=True)
class Tallies:
    """Counts of M kinds of rows.

    Attributes:
        observed: (runs, M).
        drawn: (runs, B, M) in each resample; the same resamples as `estimates.estimate` with the same seed. Of many
            patients there are none, (runs, 0, M).
        repeat: (runs,) index of the repeat of each run.
        covariance: (runs, M, runs, M) of the counts, of many patients.
    """

    observed: FloatArray
    drawn: FloatArray
    repeat: IntArray
    covariance: FloatArray | None = None

    def by_repeat(self) -> Tallies:
        """The counts with the runs of a repeat summed: (repeats, M) and (repeats, B, M)."""
        members = [np.flatnonzero(self.repeat == r) for r in range(int(self.repeat.max()) + 1)]
        member = np.array([self.repeat == r for r in range(len(members))], np.float64)
        joint = self.covariance
        return Tallies(
            np.stack([self.observed[m].sum(axis=0) for m in members]),
            np.stack([self.drawn[m].sum(axis=0) for m in members]),
            np.arange(len(members)),
            None if joint is None else np.einsum("ar,rmsn,bs->ambn", member, joint, member, optimize=True),
        )

    def errors(self, function: Callable[[FloatArray], dict[str, FloatArray]]) -> dict[str, FloatArray] | None:
        """The standard errors (...) of metrics, from the covariance of the counts; None where there are resamples.

        `function` makes metrics (B, ...) of counts (runs, B, M).
        """
        if self.covariance is None:
            return None
        joint = self.covariance.reshape(self.observed.size, -1)
        found = {}
        for name, slope in gradients(function, self.observed).items():
            found[name] = np.sqrt(np.maximum(np.einsum("i...,i...->...", slope, np.tensordot(joint, slope, 1)), 0.0))
        return found

    def uncertainty(self, function: Callable[[FloatArray], dict[str, FloatArray]]) -> dict[str, FloatArray | Error]:
        """The resamples (B,) of metrics, or their standard errors; `function` as for `errors`."""
        errors = self.errors(function)
        if errors is None:
            return dict(function(self.drawn))
        return {name: Error(float(error)) for name, error in errors.items()}


def tally(scores: Scores, kind: IntArray, kinds: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Tallies:
    """Count the rows of `scores` by `kind` (n,), 0 to `kinds` - 1 or `NOT_COUNTED`."""
    count = len(scores.runs)
    if scores.by_influence:
        made = np.flatnonzero(kind != NOT_COUNTED)
        cell = scores.run[made] * kinds + kind[made]
        joint = covariance(scores.patient[made], cell, np.ones(len(made)), count * kinds, scores.strata)
        observed = np.bincount(cell, minlength=count * kinds).reshape(count, kinds).astype(np.float64)
        nothing = np.zeros((count, 0, kinds))
        return Tallies(observed, nothing, scores.repeat_of_run, joint.reshape(count, kinds, count, kinds))
    draws = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    observed, drawn = np.zeros((count, kinds)), np.zeros((count, resamples, kinds))
    for run in range(count):
        rows = np.flatnonzero((scores.run == run) & (kind != NOT_COUNTED))
        if not len(rows):
            continue
        members, patient = np.unique(scores.patient[rows], return_inverse=True)
        counts = np.zeros((len(members), kinds))
        np.add.at(counts, (patient, kind[rows]), 1.0)
        observed[run] = counts.sum(axis=0)
        step = max(FEWEST_AT_ONCE, CELLS_AT_ONCE // len(members))
        for begin in range(0, resamples, step):
            weights = draws[members, begin : begin + step].astype(np.float64)
            drawn[run, begin : begin + step] = weights.T @ counts
    return Tallies(observed, drawn, scores.repeat_of_run)


def influences(
    scores: Scores, kind: IntArray, observed: FloatArray, function: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """The influence (P, ...) of each patient on a metric of counts.

    Args:
        scores: The rows.
        kind: (n,) as for `tally`.
        observed: (runs, M) their counts.
        function: From counts (runs, B, M) to a metric (B, ...).
    """
    from scipy.sparse import csr_array

    made = np.flatnonzero(kind != NOT_COUNTED)
    cell = scores.run[made] * observed.shape[1] + kind[made]
    cells = csr_array((np.ones(len(made)), (scores.patient[made], cell)), shape=(scores.patients, observed.size))
    moved: FloatArray = cells @ gradients(lambda counts: {"": function(counts)}, observed)[""]
    return moved
