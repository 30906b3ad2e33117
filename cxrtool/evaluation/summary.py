"""`metrics.json`: every metric of an evaluation with its interval and spread, or the reason why it is undefined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxrtool.data.tables.predictions import PROBABILITIES
from cxrtool.data.tables.severity import ESTIMATED, SEVERITY
from cxrtool.evaluation.counts import draw_counts
from cxrtool.evaluation.groups import NONE, Grouping, available, is_ordered, split_by, trend, unread
from cxrtool.evaluation.metrics import calibration
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.metrics.estimates import (
    ABSTENTIONS,
    BY_CLASS,
    SOURCES,
    Estimates,
    Figures,
    derive,
    estimate,
)
from cxrtool.evaluation.ordinal import summarise_order
from cxrtool.evaluation.resampling.intervals import (
    DIGITS,
    IMAGES,
    RATES,
    RESAMPLES,
    Measure,
    few_of,
    measure,
    method_of,
)
from cxrtool.evaluation.scores import Scores, distinct
from cxrtool.evaluation.unknown import hide_measures, hide_unknown
from cxrtool.options import one_of

Summary = dict[str, Any]

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_sensitivity",
    "macro_specificity",
    "macro_precision",
    "macro_f1",
    "macro_auc",
    "hard_auc",
    "mcc",
    "average_precision",
    "ece",
    "brier",
)
PER_CLASS = (*metrics.PER_CLASS, "auc")
PER_RUN = ("sensitivity", "specificity", "precision", "f1", "auc")
PER_GROUP = ("accuracy", "sensitivity", "specificity", "auc")
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "npv", *ABSTENTIONS)
NOISY = ("ece", "slope")
BOUNDS = {"mcc": (-1.0, 1.0), "brier": (0.0, 2.0), "slope": (-math.inf, math.inf), "intercept": (-math.inf, math.inf)}
"""Lowest and highest value of a metric, where they are not 0 and 1."""

FEW_IMAGES = 20
"""For a group with fewer images than this in a fold, no standard deviation over folds is shown."""

MEANING = "test sampling, trained models fixed"
NEEDS_SCORES = "counts have no scores"


def summarise(
    scores: Scores,
    *,
    positive: str | None = None,
    by: Sequence[Grouping] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Evaluate labelled predictions, at least one row.

    Average precision, and sensitivity, specificity and AUC of the groups, are of the class `positive`, or the
    unweighted mean over the classes if it is None.

    Raises:
        UsageError: `positive` is not a class.
        InputError: A column of `by` does not exist.
    """
    positive_index = find_positive(scores.classes, positive)
    calibrated = scores.kind == PROBABILITIES
    found = estimate(scores, seed=seed, resamples=resamples, calibrated=calibrated, positive_index=positive_index)
    measures = _Measures(scores, found, positive_index)
    groups: dict[str, dict[str, Any]] = {}
    trends: dict[str, Any] = {}
    by = [available(scores, grouping) for grouping in by]
    for grouping in by:
        parts = split_by(scores, grouping)
        groups[grouping.column] = {
            name: _group(scores, mask, name, grouping, positive_index, seed, resamples) for name, mask in parts
        }
        strata = [(name, mask) for name, mask in parts if name != NONE]
        if is_ordered([name for name, _ in strata], grouping) and scores.decided.any():
            trends[grouping.column] = trend(scores, strata, seed=seed)
    made = scores.decided
    cells = metrics.confusion_matrix(scores.truth[made], scores.predicted[made], len(scores.classes))
    summary = {
        "classes": list(scores.classes),
        "positive": positive,
        "images": scores.images,
        "patients": scores.patients,
        "runs": len(scores.runs),
        "repeats": len(set(scores.repeat_of_run.tolist())),
        **measures_of(scores, found, positive_index),
        "per_group": groups,
        "confusion": [[int(count) for count in row] for row in cells],
        "calibration": None
        if not calibrated
        else {
            "ece_if_calibrated": round(_expected_error(scores, seed), DIGITS),
            "per_class": {
                name: {metric: measures.per_class(metric, k).as_json() for metric in ("slope", "intercept")}
                for k, name in enumerate(scores.classes)
            },
        },
        "per_run": _per_run(scores, found, positive_index),
        "trend": trends,
        "interval": interval_of([scores], seed=seed, resamples=resamples),
        "patients_known": scores.by_patient,
        "notes": [*scores.notes, *(note for grouping in by for note in unread(scores, grouping))],
    }
    if ordinal := summarise_order(scores, seed=seed, resamples=resamples):
        summary["ordinal"] = ordinal
    if scores.target:
        summary["target"] = scores.target
    hide_unknown(summary, scores)
    return summary


def interval_of(many: Sequence[Scores], *, seed: int, resamples: int) -> dict[str, Any]:
    """The entry `interval` of the files: how the intervals of some scores are made."""
    found: dict[str, Any] = {"confidence": 0.95, "resamples": resamples, "seed": seed, "meaning": MEANING}
    if any(scores.by_influence for scores in many):
        found["method"] = method_of(by_patient=any(scores.by_patient for scores in many), by_influence=True)
    return found


def measures_of(scores: Scores, found: Estimates, positive_index: int | None) -> Summary:
    """`overall` and `per_class` of `metrics.json`; calibration only where it was estimated."""
    measures = _Measures(scores, found, positive_index)
    made = {
        "overall": {name: measures.overall(name).as_json() for name in (*OVERALL, *ABSTENTIONS) if name in found.value},
        "per_class": {
            name: {metric: measures.per_class(metric, k).as_json() for metric in PER_CLASS}
            | {"support": distinct(scores.image[scores.truth == k])}
            for k, name in enumerate(scores.classes)
        },
    }
    hide_measures(made, scores)
    return made


def summarise_counts(
    classes: Sequence[str],
    counts: FloatArray,
    *,
    positive: str | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Summary:
    """Evaluate a confusion matrix (K, K), rows = true: the same object, with Wilson's intervals for proportions.

    Other metrics (F1, macro averages, Matthews) get percentiles over images resampled within their class.

    Raises:
        UsageError: `positive` is not a class.
    """
    positive_index = find_positive(classes, positive)
    observed = _decide_counts(counts)
    drawn = _decide_counts(draw_counts(counts, resamples, np.random.default_rng(seed)))
    defined = {name: ~np.isnan(values) for name, values in observed.items() if name in BY_CLASS}
    value, replicates = derive(observed, defined, positive_index), derive(drawn, defined, positive_index)
    true, predicted, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    images = {
        "sensitivity": true,
        "specificity": total - true,
        "precision": predicted,
        "npv": total - predicted,
        "f1": np.full(len(true), total),
    }
    missing = Measure(reason=NEEDS_SCORES).as_json()

    def measured(name: str, k: int | None) -> dict[str, Any]:
        if name not in value:
            return missing
        chosen = value[name] if k is None else value[name][k]
        return measure(
            float(chosen),
            replicates[name] if k is None else replicates[name][:, k],
            patients=int(total if k is None else images[name][k]),
            proportion=name in PROPORTIONS,
            few=math.inf,
            method=IMAGES,
            undefined=_why(name, None if k is None else classes[k]),
            caveat=_composition(name, defined, classes) if k is None else "",
        ).as_json()

    return {
        "classes": list(classes),
        "positive": positive,
        "images": int(total),
        "patients": int(total),
        "runs": 1,
        "repeats": 1,
        "overall": {name: measured(name, None) for name in OVERALL},
        "per_class": {
            name: {metric: measured(metric, k) for metric in PER_CLASS} | {"support": int(true[k])}
            for k, name in enumerate(classes)
        },
        "per_group": {},
        "confusion": [[int(count) for count in row] for row in counts],
        "calibration": None,
        "per_run": [],
        "trend": {},
        "interval": {"confidence": 0.95, "resamples": resamples, "seed": seed, "meaning": MEANING},
        "patients_known": False,
        "notes": ["From counts alone: every image counts as a patient, and metrics that need scores are missing."],
    }


def find_positive(classes: Sequence[str], positive: str | None) -> int | None:
    """The index of the positive class, None if there is none; a `UsageError` if it is not among the classes."""
    if positive is None:
        return None
    one_of("--positive", positive, classes)
    return list(classes).index(positive)


class _Measures:
    """Makes measures of estimates, with denominators and reasons for undefined values."""

    def __init__(
        self, scores: Scores, found: Estimates, positive_index: int | None, *, spread_over_runs: bool = True
    ) -> None:
        self.scores, self.found, self.positive_index, self.spread_over_runs = (
            scores,
            found,
            positive_index,
            spread_over_runs,
        )
        self.defined = {name: ~np.isnan(values) for name, values in found.value.items() if name in BY_CLASS}

    def per_class(self, name: str, k: int) -> Measure:
        return self._measure(name, k, name, self._patients(name, k))

    def overall(self, name: str) -> Measure:
        source = SOURCES.get(name)
        if source and self.positive_index is not None and name == "average_precision":
            return self._measure(name, None, source, self.scores.patients, of=self.positive_index)
        return self._measure(
            name, None, source or name, self._decided() if name == "accuracy" else self.scores.patients
        )

    def group(self, name: str) -> Measure:
        if name == "accuracy":
            return self._measure(name, None, name, self._decided())
        if self.positive_index is None:
            return self._measure(f"{name}_positive", None, name, self.scores.patients)
        return self._measure(name, self.positive_index, name, self._patients(name, self.positive_index))

    def _measure(self, name: str, k: int | None, source: str, patients: int, of: int | None = None) -> Measure:
        def pick(level: Figures) -> FloatArray:
            return level[name] if k is None else level[name][..., k]

        which = k if k is not None else of
        caveats = [] if which is not None else [_composition(name, self.defined, self.scores.classes)]
        caveats.append(self._lacking(source, which))
        return measure(
            float(pick(self.found.value)),
            self.found.uncertainty(name, pick(self.found.replicates)),
            patients=patients,
            proportion=name in PROPORTIONS,
            few=few_of(name, {} if which is None else {rate: float(self.found.value[rate][which]) for rate in RATES}),
            noisy=name in NOISY,
            method=method_of(by_patient=self.scores.by_patient, by_influence=self.found.strata is not None),
            bounds=BOUNDS.get(name, (0.0, 1.0)),
            sd_runs=float(metrics.spread(pick(self.found.by_run))) if self.spread_over_runs else math.nan,
            sd_repeats=float(metrics.spread(pick(self.found.by_repeat))),
            mean_runs=float(metrics.mean_defined(pick(self.found.by_run))),
            undefined=_why(source, None if which is None else self.scores.classes[which]),
            caveat="; ".join(caveat for caveat in caveats if caveat),
        )

    def _decided(self) -> int:
        return distinct(self.scores.patient[self.scores.decided])

    def _patients(self, name: str, k: int) -> int:
        scores = self.scores
        mask = {
            "sensitivity": scores.decided & (scores.truth == k),
            "specificity": scores.decided & (scores.truth != k),
            "precision": scores.predicted == k,
            "npv": scores.decided & (scores.predicted != k),
        }.get(name)
        return scores.patients if mask is None else distinct(scores.patient[mask])

    def _lacking(self, source: str, k: int | None) -> str:
        defined, units, what = self.found.defined_units(source)
        if source in BY_CLASS:
            counted = defined[self.defined[source]] if k is None else defined[[k]]
        else:
            counted = np.atleast_1d(defined)
        fewest = int(counted.min()) if len(counted) else units
        return f"defined in {fewest} of {units} {what}" if 0 < fewest < units else ""


def _group(
    scores: Scores, mask: Any, name: str, grouping: Grouping, positive_index: int | None, seed: int, resamples: int
) -> dict[str, Any]:
    part = scores.where(mask)
    sizes = {"images": part.images, "patients": part.patients}
    if name == NONE and grouping.column in (SEVERITY, ESTIMATED):
        nothing = Measure(reason="not a stratum: images without a severity").as_json()
        return dict.fromkeys(PER_GROUP, nothing) | sizes
    present = np.unique(part.truth)
    # In a stratum of one class, only the sensitivity for that class is defined.
    positive = int(present[0]) if positive_index is None and len(present) == 1 else positive_index
    found = estimate(part, seed=seed, resamples=resamples, calibrated=False, positive_index=positive)
    smallest = int(np.bincount(part.run, minlength=len(scores.runs)).min())
    measures = _Measures(part, found, positive, spread_over_runs=smallest >= FEW_IMAGES)
    return {metric: measures.group(metric).as_json() for metric in PER_GROUP} | sizes


def _per_run(scores: Scores, found: Estimates, positive_index: int | None) -> list[dict[str, Any]]:
    """The metrics of each of several runs: of the positive class, otherwise the mean over the classes."""
    if len(scores.runs) < 2:
        return []
    names = {name: name if positive_index is not None else f"macro_{name}" for name in PER_RUN}
    rows = []
    for run, (repeat, fold) in enumerate(scores.runs):
        values = {
            name: found.by_run[source][run] if positive_index is None else found.by_run[source][run, positive_index]
            for name, source in names.items()
        }
        values["balanced_accuracy"] = found.by_run["balanced_accuracy"][run]
        figures = {
            name: None if math.isnan(value) else round(float(value), DIGITS) + 0.0 for name, value in values.items()
        }
        images = int((scores.run == run).sum())
        rows.append({"repeat": repeat or "0", "fold": fold or "0", "images": images, **figures})
    return rows


def _decide_counts(counts: FloatArray) -> Figures:
    return {
        **metrics.class_metrics(counts),
        "accuracy": metrics.accuracy(counts),
        "mcc": metrics.matthews(counts),
    }


def _expected_error(scores: Scores, seed: int) -> float:
    rng = np.random.default_rng(seed)
    errors = []
    for run in range(len(scores.runs)):
        rows = scores.run == run
        confidence, _ = calibration.top_label(scores.probabilities[rows], scores.truth[rows])
        bins = calibration.equal_mass_bins(confidence)
        errors.append(calibration.error_if_calibrated(confidence, bins, rng))
    return float(np.mean(errors))


def _composition(name: str, defined: dict[str, Any], classes: Sequence[str]) -> str:
    """The classes of an average, where it is not over all of them."""
    single = (SOURCES.get(name, name.removesuffix("_positive")),)
    sources = ("sensitivity", "specificity") if name == "hard_auc" else single
    lacking = sorted({int(k) for source in sources if source in defined for k in np.flatnonzero(~defined[source])})
    if not lacking or len(lacking) == len(classes):
        return ""
    without = ", ".join(classes[k] for k in lacking)
    return f"over {len(classes) - len(lacking)} of {len(classes)} classes, without {without}"


def _why(name: str, label: str | None) -> str:
    """Why a metric is undefined."""
    if label is None:
        return {
            "mcc": "only one class is true, or only one was predicted",
            "accuracy": "no image was decided",
        }.get(name, "undefined for every class")
    return {
        "sensitivity": f"no images of {label}",
        "specificity": f"all images are of {label}",
        "precision": f"no image was predicted {label}",
        "npv": f"every image was predicted {label}",
        "f1": f"no image is {label} or was predicted {label}",
        "auc": f"no run has images of both {label} and the rest",
        "class_ap": f"no run has images of both {label} and the rest",
        "slope": f"no finite fit: the scores of {label} and the rest do not overlap, or one of them is missing",
        "intercept": f"no run has images of both {label} and the rest",
    }.get(name, "undefined")
