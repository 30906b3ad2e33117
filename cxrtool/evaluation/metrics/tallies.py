"""Counts of rows by kind in every run, observed and in each resample of patients, from which proportions follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.metrics.estimates import CELLS_AT_ONCE, FEWEST_AT_ONCE
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients
from cxrtool.evaluation.scores import Scores

NOT_COUNTED = -1


@dataclass(frozen=True)
class Tallies:
    """Counts of M kinds of rows.

    Attributes:
        observed: (runs, M).
        drawn: (runs, B, M) in each resample; the same resamples as `estimates.estimate` with the same seed.
        repeat: (runs,) index of the repeat of each run.
    """

    observed: FloatArray
    drawn: FloatArray
    repeat: IntArray

    def by_repeat(self) -> Tallies:
        """The counts with the runs of a repeat summed: (repeats, M) and (repeats, B, M)."""
        members = [np.flatnonzero(self.repeat == r) for r in range(int(self.repeat.max()) + 1)]
        return Tallies(
            np.stack([self.observed[m].sum(axis=0) for m in members]),
            np.stack([self.drawn[m].sum(axis=0) for m in members]),
            np.arange(len(members)),
        )


def tally(scores: Scores, kind: IntArray, kinds: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Tallies:
    """Count the rows of `scores` by `kind` (n,), 0 to `kinds` - 1 or `NOT_COUNTED`."""
    draws = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    count = len(scores.runs)
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
