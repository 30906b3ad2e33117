"""All metrics of a set of scores: the value, its uncertainty, its spread over runs and over repeats.

Decisions are pooled over the folds of a repeat, then averaged over the repeats. Rankings and calibration are computed
within each run and averaged over the runs in which they are defined, because scores of different models share no scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics import calibration
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, sums_by
from cxrtool.evaluation.metrics.ranking import Ranking
from cxrtool.evaluation.resampling.influence import Error, covariance, gradients, standard_error
from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients
from cxrtool.evaluation.scores import Scores

Figures = dict[str, FloatArray]
"""Arrays by the name of the metric. Those in `BY_CLASS` end with an axis of K classes, the others do not."""

ABSTENTIONS = ("coverage", "accuracy_all")
"""Metrics that exist only where some images are undecided: the share of images that is decided, and the accuracy with
undecided images counted as wrong."""

DECISIONS = (*metrics.PER_CLASS, "accuracy", "mcc", *ABSTENTIONS)
RANKINGS = ("auc", "class_ap")
CALIBRATIONS = ("slope", "intercept")
COUNTS = ("confusion", "all_images")
"""Counts, which are pooled by summing."""

RESAMPLED = ("ece",)
"""Metrics with resamples also of many patients: the absolute values in it are not smooth where a bin is calibrated.
Only the sums of its bins are drawn, from the normal distribution that they have with many patients."""

BY_CLASS = (*metrics.PER_CLASS, *RANKINGS, *CALIBRATIONS)

MACROS = {
    "macro_sensitivity": "sensitivity",
    "macro_specificity": "specificity",
    "macro_precision": "precision",
    "macro_f1": "f1",
    "macro_auc": "auc",
}
"""Overall metric to the metric of a class of which it is the unweighted mean."""

SOURCES = {**MACROS, "balanced_accuracy": "sensitivity", "average_precision": "class_ap"}
"""Overall metric to the metric of the classes that it is computed from."""

CELLS_AT_ONCE = 100_000
"""Images of a run times resamples in one array, so that it fits into the cache of a processor."""

FEWEST_AT_ONCE = 16
"""Resamples at once however many images: with fewer, the overhead of the calls dominates."""


@dataclass(frozen=True)
class Estimates:
    """Every metric four times: its value, in each resample, in each run, in each repeat.

    Attributes:
        value: () or (K,).
        replicates: (B,) or (B, K); of many patients (P,) or (P, K) instead, the influence of each patient, except for
            `RESAMPLED`.
        by_run: (runs,) or (runs, K).
        by_repeat: (repeats,) or (repeats, K).
        strata: (P,) of the patients, where `replicates` are influences.
    """

    value: Figures
    replicates: Figures
    by_run: Figures
    by_repeat: Figures
    strata: IntArray | None = None

    def uncertainty(self, name: str, replicates: FloatArray) -> FloatArray | Error:
        """The resamples (B,) of a metric, or the standard error from the influences (P,) of the patients."""
        if self.strata is None or name in RESAMPLED:
            return replicates
        return Error(float(standard_error(replicates, self.strata)))

    def defined_units(self, name: str) -> tuple[FloatArray, int, str]:
        """In how many of the units that a metric is averaged over it is defined, their number, and their name."""
        pooled = name in DECISIONS
        units = self.by_repeat[name] if pooled else self.by_run[name]
        defined: FloatArray = (~np.isnan(units)).sum(axis=0).astype(np.float64)
        return defined, len(units), "repeats" if pooled else "runs"


class RunStatistics:
    """One run, prepared for any number of weightings of its patients; calibration is optional."""

    def __init__(self, scores: Scores, run: int, *, calibrated: bool) -> None:
        rows = np.flatnonzero(scores.run == run)
        truth, probabilities = scores.truth[rows], scores.probabilities[rows]
        count = len(scores.classes)
        self.rows, self.classes, self.calibrated = rows, count, calibrated
        self.members, self.patient = np.unique(scores.patient[rows], return_inverse=True)
        self.abstaining = not scores.decided.all()
        # What is summed over images is summed for each patient first.
        decided = scores.decided[rows]
        cells = np.where(decided, truth * count + scores.predicted[rows], count * count)
        self.sums = [self._count(cells == cell) for cell in range(count * count)]
        self.sums.append(self._count(np.ones(len(rows))))
        self.positive = [truth == k for k in range(count)]
        self.rankings = [Ranking.of(probabilities[:, k], self.positive[k]) for k in range(count)]
        if calibrated:
            confidence, hit = calibration.top_label(probabilities, truth)
            self.bins = np.unique(calibration.equal_mass_bins(confidence), return_inverse=True)[1]
            self.gap = hit - confidence
            self.sums += [self._count(np.where(self.bins == k, self.gap, 0.0)) for k in range(self.bins.max() + 1)]
            self.brier = calibration.brier_terms(probabilities, truth)
            self.sums.append(self._count(self.brier))
            self.log_odds = [calibration.logit(probabilities[:, k]) for k in range(count)]
            ones = np.ones((len(rows), 1))
            self.starts: list[tuple[float, float, float] | None] = [None] * count
            for k in range(count):
                b, a, shift = (float(part[0]) for part in self._fit(k, ones))
                self.starts[k] = (a, b, shift) if np.isfinite([a, b, shift]).all() else None

    def _count(self, values: NDArray[Any]) -> FloatArray:
        """The sum of the images of each patient of the run."""
        return sums_by(self.patient, values, len(self.members))

    def __call__(self, weights: NDArray[Any]) -> Figures:
        """The metrics of the run under each weighting.

        Args:
            weights: (P, B) how often each patient counts.

        Returns:
            `confusion` (B, K, K) of the decided images; where some are undecided `all_images` (B,); `RANKINGS` (B, K);
            with calibration `ece`, `brier` (B,) and `CALIBRATIONS` (B, K).
        """
        counted = weights[self.members]
        count = self.classes
        sums = np.stack(self.sums) @ counted.astype(np.float64)
        total = sums[count * count]
        result: Figures = {"confusion": sums[: count * count].T.reshape(-1, count, count)}
        if self.abstaining:
            result["all_images"] = total
        own = counted[self.patient]
        areas = [ranking.areas(own) for ranking in self.rankings]
        result["auc"], result["class_ap"] = (np.stack(part, axis=-1) for part in zip(*areas, strict=True))
        if self.calibrated:
            result["ece"] = calibration.calibration_error(sums[count * count + 1 : -1], total)
            result["brier"] = metrics.divide(sums[-1], total)
            own = own.astype(np.float64)
            fits = [self._fit(k, own) for k in range(count)]
            result["slope"] = np.stack([fit[0] for fit in fits], axis=-1)
            result["intercept"] = np.stack([fit[2] for fit in fits], axis=-1)
        return result

    def influence(self) -> Figures:
        """How much each row moves the metrics of the run that are not of decisions: (n,) or (n, K), as in a call."""
        areas = [ranking.influence() for ranking in self.rankings]
        result = {name: np.stack(part, axis=-1) for name, part in zip(RANKINGS, zip(*areas, strict=True), strict=True)}
        if self.calibrated:
            result["brier"] = (self.brier - self.brier.mean()) / len(self.rows)
            fits = []
            for start, log_odds, positive in zip(self.starts, self.log_odds, self.positive, strict=True):
                a, b, shift = start or (np.nan, np.nan, np.nan)
                fits.append(calibration.fit_influence(log_odds, positive, b, a, shift))
            for name, part in zip(CALIBRATIONS, zip(*fits, strict=True), strict=True):
                result[name] = np.stack(part, axis=-1)
        return result

    def _fit(self, k: int, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        start = self.starts[k]
        slope, constant = calibration.slope(
            self.log_odds[k], self.positive[k], weights, (start[0], start[1]) if start else None
        )
        shift = calibration.intercept(self.log_odds[k], self.positive[k], weights, start[2] if start else 0.0)
        return slope, constant, shift


def estimate(
    scores: Scores,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    calibrated: bool = True,
    positive_index: int | None = None,
) -> Estimates:
    """Compute every metric of at least one row of scores, with or without calibration.

    `sensitivity_positive`, `specificity_positive`, `auc_positive` and `average_precision` are of the positive class, or
    the mean over the classes if there is none.
    """
    runs = [
        RunStatistics(scores, run, calibrated=calibrated)
        for run in range(len(scores.runs))
        if (scores.run == run).any()
    ]
    repeat = scores.repeat_of_run[np.unique(scores.run)]
    repeat = np.unique(repeat, return_inverse=True)[1]
    patients = scores.patients
    observed = _stack(runs, np.ones((patients, 1)))
    by_run = {name: values[:, 0] for name, values in _decide(observed).items()}
    by_repeat = {name: values[:, 0] for name, values in _per_repeat(observed, repeat).items()}
    value = {name: values[0] for name, values in _pool(observed, repeat).items()}
    defined = {name: ~np.isnan(value[name]) for name in BY_CLASS if name in value}

    levels = value, by_run, by_repeat
    if scores.by_influence:
        replicates = _influences(scores, runs, repeat)
        if calibrated:
            replicates["ece"] = _drawn_errors(scores, runs, resamples, np.random.default_rng(seed))
        value, by_run, by_repeat = (derive(level, defined, positive_index) for level in levels)
        return Estimates(value, derive(replicates, defined, positive_index), by_run, by_repeat, scores.strata)
    counts = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    largest = max(len(run.rows) for run in runs)
    step = max(FEWEST_AT_ONCE, CELLS_AT_ONCE // largest)
    parts = [_pool(_stack(runs, counts[:, begin : begin + step]), repeat) for begin in range(0, resamples, step)]
    replicates = {name: np.concatenate([part[name] for part in parts]) for name in value}
    value, by_run, by_repeat = (derive(level, defined, positive_index) for level in levels)
    return Estimates(value, derive(replicates, defined, positive_index), by_run, by_repeat)


def _influences(scores: Scores, runs: list[RunStatistics], repeat: IntArray) -> Figures:
    """The influence of each patient on every metric except the calibration error: (P,) or (P, K)."""
    kinds, patients = len(scores.classes) ** 2, scores.patients
    cells = np.where(scores.decided, scores.truth * len(scores.classes) + scores.predicted, kinds)
    for run, its_repeat in zip(runs, repeat.tolist(), strict=True):
        cells[run.rows] += its_repeat * (kinds + 1)
    repeats = int(repeat.max()) + 1
    totals = np.bincount(cells, minlength=repeats * (kinds + 1)).reshape(repeats, kinds + 1).astype(np.float64)
    abstaining = not scores.decided.all()

    def decide(counts: FloatArray) -> Figures:
        confusion = counts[..., :kinds].reshape(*counts.shape[:-1], len(scores.classes), -1)
        figures = {"confusion": confusion} | ({"all_images": counts.sum(axis=-1)} if abstaining else {})
        return _pool(figures, np.arange(repeats))

    slopes = gradients(decide, totals)
    found = {name: sums_by(scores.patient, slope[cells], patients) for name, slope in slopes.items()}
    moved = [run.influence() for run in runs]
    for name in moved[0]:
        rows = np.zeros((len(scores), *moved[0][name].shape[1:]))
        # The mean is over the runs where the metric is defined.
        known = [~np.isnan(part[name]).any(axis=0) for part in moved]
        for run, part, own in zip(runs, moved, known, strict=True):
            rows[run.rows] = np.where(own, part[name], 0.0)
        found[name] = sums_by(scores.patient, metrics.divide(rows, np.sum(known, axis=0)), patients)
    return found


def _drawn_errors(scores: Scores, runs: list[RunStatistics], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Calibration errors (B,) whose sums in each bin are drawn with the covariance that the patients give them."""
    kind, gap, begin = np.zeros(len(scores), np.intp), np.zeros(len(scores)), 0
    slices = []
    for run in runs:
        kind[run.rows], gap[run.rows] = begin + run.bins, run.gap
        slices.append(slice(begin, begin + int(run.bins.max()) + 1))
        begin = slices[-1].stop
    totals = np.bincount(kind, gap, minlength=begin)
    images = np.array([len(run.rows) for run in runs], np.float64)
    # A patient with many images changes the number of images, too.
    number = np.zeros(len(scores), np.intp)
    for index, run in enumerate(runs):
        number[run.rows] = begin + index
    both = covariance(
        np.tile(scores.patient, 2),
        np.concatenate([kind, number]),
        np.concatenate([gap, np.ones(len(scores))]),
        begin + len(runs),
        scores.strata,
    )
    # The symmetric root does not depend on the signs of the eigenvectors, which differ between computers.
    values, vectors = np.linalg.eigh(both)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    drawn = np.concatenate([totals, images])[:, None] + root @ rng.standard_normal((len(root), resamples))
    errors = [calibration.calibration_error(drawn[own], drawn[begin + i]) for i, own in enumerate(slices)]
    mean: FloatArray = np.mean(errors, axis=0)
    return mean


def _stack(runs: list[RunStatistics], weights: NDArray[Any]) -> Figures:
    results = [run(weights) for run in runs]
    return {name: np.stack([result[name] for result in results]) for name in results[0]}


def _decide(figures: Figures) -> Figures:
    """Replace confusion matrices by their metrics."""
    rest = {name: values for name, values in figures.items() if name not in COUNTS}
    confusion = figures["confusion"]
    if "all_images" in figures:
        rest["coverage"] = metrics.divide(confusion.sum(axis=(-2, -1)), figures["all_images"])
        rest["accuracy_all"] = metrics.divide(np.trace(confusion, axis1=-2, axis2=-1), figures["all_images"])
    return {
        **metrics.class_metrics(confusion),
        "accuracy": metrics.accuracy(confusion),
        "mcc": metrics.matthews(confusion),
        **rest,
    }


def _per_repeat(figures: Figures, repeat: IntArray) -> Figures:
    """One value a repeat: decisions pooled over its folds, other metrics averaged over its runs."""
    members = [np.flatnonzero(repeat == r) for r in range(repeat.max() + 1)]
    return _decide(
        {
            name: np.stack(
                [values[m].sum(axis=0) if name in COUNTS else metrics.mean_defined(values[m]) for m in members]
            )
            for name, values in figures.items()
        }
    )


def _pool(figures: Figures, repeat: IntArray) -> Figures:
    """One overall value: the mean over repeats for decisions, over runs for other metrics, where defined."""
    pooled = _per_repeat({name: figures[name] for name in COUNTS if name in figures}, repeat)
    rest = {name: values for name, values in figures.items() if name not in COUNTS}
    return {name: metrics.mean_defined(values) for name, values in {**pooled, **rest}.items()}


def derive(level: Figures, defined: dict[str, NDArray[np.bool_]], positive_index: int | None) -> Figures:
    """Add macro averages, and the metrics of the positive class."""
    added = {name: metrics.macro(level[source], defined[source]) for name, source in MACROS.items() if source in level}
    added["balanced_accuracy"] = added["macro_sensitivity"]
    added["hard_auc"] = (added["macro_sensitivity"] + added["macro_specificity"]) / 2
    for name, source in (
        ("sensitivity_positive", "sensitivity"),
        ("specificity_positive", "specificity"),
        ("auc_positive", "auc"),
        ("average_precision", "class_ap"),
    ):
        if source in level:
            added[name] = (
                metrics.macro(level[source], defined[source])
                if positive_index is None
                else level[source][..., positive_index]
            )
    return {**level, **added}
