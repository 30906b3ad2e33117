"""The operating point of one class against the rest: the 2x2 table and the clinical metrics that follow from it.

Counts, sensitivity, specificity and predictive values are pooled over the folds of a repeat and averaged over the
repeats. Likelihood ratios, and predictive values at a stated prevalence (Bayes' theorem), follow from the sensitivity
and specificity shown, and in each resample from those of the resample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxrtool.evaluation.counts import draw_counts
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray, divide
from cxrtool.evaluation.metrics.tallies import NOT_COUNTED, Tallies, tally
from cxrtool.evaluation.resampling.intervals import (
    DIGITS,
    FEW_PATIENTS,
    IMAGES,
    RATES,
    RESAMPLES,
    WILSON,
    Measure,
    few_of,
    measure,
    method_of,
    wilson,
)
from cxrtool.evaluation.scores import Scores, distinct

TP, FN, FP, TN = range(4)
CELLS = ("tp", "fn", "fp", "tn")
SHARES = ("sensitivity", "specificity", "ppv", "npv")
RATIOS = ("lr_positive", "lr_negative")
WILSON_ENDS = "Wilson's ends of sensitivity and specificity"
LIKELIEST, GIVEN = "most probable class", "as predicted"
"""The rule of the decisions in the predictions: the most probable class, or an unknown other rule."""


def operating_point(
    scores: Scores,
    positive_index: int,
    *,
    rule: str | None = None,
    prevalences: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point of the decisions in `scores`: an entry of `operating` in `metrics.json`.

    The other classes together are negative; undecided images are not counted. `rule` names how the decisions were made
    (None: `LIKELIEST` where they match it, otherwise `GIVEN`); `prevalences`, in (0, 1), are those for further
    predictive values.
    """
    true, predicted = scores.truth == positive_index, scores.predicted == positive_index
    kind = np.where(true, np.where(predicted, TP, FN), np.where(predicted, FP, TN))
    made = scores.decided
    tallies = tally(scores, np.where(made, kind, NOT_COUNTED), len(CELLS), seed=seed, resamples=resamples)
    likeliest = np.array_equal(scores.predicted[made], scores.probabilities[made].argmax(axis=1))
    sizes = {"sensitivity": true, "specificity": ~true, "ppv": predicted, "npv": ~predicted}
    patients = {name: distinct(scores.patient[mask & made]) for name, mask in sizes.items()}
    rule = rule or (LIKELIEST if likeliest else GIVEN)
    return _entry(
        scores.classes,
        positive_index,
        rule,
        prevalences,
        tallies.by_repeat(),
        patients,
        tallies.observed,
        few=FEW_PATIENTS,
        method=method_of(by_patient=scores.by_patient, by_influence=scores.by_influence),
    )


def operating_counts(
    classes: Sequence[str],
    counts: FloatArray,
    positive_index: int,
    *,
    prevalences: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point of a confusion matrix (K, K), rows = true, with Wilson's intervals."""
    observed = _cells(counts, positive_index)[None]
    drawn = _cells(draw_counts(counts, resamples, np.random.default_rng(seed)), positive_index)[None]
    tp, fn, fp, tn = (int(count) for count in observed[0])
    images = {"sensitivity": tp + fn, "specificity": fp + tn, "ppv": tp + fp, "npv": fn + tn}
    tallies = Tallies(observed, drawn, np.zeros(1, np.intp))
    return _entry(classes, positive_index, GIVEN, prevalences, tallies, images, observed, few=math.inf, method=IMAGES)


def shares(cells: FloatArray) -> dict[str, FloatArray]:
    """Sensitivity, specificity and predictive values of (..., 4) counts, NaN where undefined.

    >>> {name: value.item() for name, value in shares(np.array([8.0, 2.0, 1.0, 4.0])).items()}["sensitivity"]
    0.8
    """
    tp, fn, fp, tn = (cells[..., k] for k in range(4))
    return {
        "sensitivity": divide(tp, tp + fn),
        "specificity": divide(tn, tn + fp),
        "ppv": divide(tp, tp + fp),
        "npv": divide(tn, tn + fn),
    }


def ratios(sensitivity: FloatArray, specificity: FloatArray) -> dict[str, FloatArray]:
    """Positive and negative likelihood ratio, NaN where infinite or undefined.

    >>> {name: round(value.item(), 4) for name, value in ratios(np.array(0.9), np.array(0.8)).items()}
    {'lr_positive': 4.5, 'lr_negative': 0.125}
    """
    return {
        "lr_positive": divide(sensitivity, np.round(1 - specificity, 15)),
        "lr_negative": divide(1 - sensitivity, specificity),
    }


def at_prevalence(sensitivity: FloatArray, specificity: FloatArray, prevalence: float) -> dict[str, FloatArray]:
    """Predictive values at another prevalence, by Bayes' theorem.

    Assumes that sensitivity and specificity are the same there, which other patients may change.

    >>> at_prevalence(np.array(0.9), np.array(0.9), 0.1)["ppv"].round(4).item()
    0.5
    """
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return {
        "ppv": divide(true_positive, true_positive + false_positive),
        "npv": divide(true_negative, true_negative + false_negative),
    }


def _cells(confusion: FloatArray, positive_index: int) -> FloatArray:
    """(..., K, K) counts to the (..., 4) of one class against the rest."""
    tp = confusion[..., positive_index, positive_index]
    fn = confusion[..., positive_index, :].sum(axis=-1) - tp
    fp = confusion[..., :, positive_index].sum(axis=-1) - tp
    return np.stack([tp, fn, fp, confusion.sum(axis=(-2, -1)) - tp - fn - fp], axis=-1)


def _entry(
    classes: Sequence[str],
    positive_index: int,
    rule: str,
    prevalences: Sequence[float],
    repeats: Tallies,
    patients: dict[str, int],
    by_run: FloatArray,
    *,
    few: float,
    method: str,
) -> dict[str, Any]:
    """The entry, from the counts of each repeat and the (runs, 4) counts."""
    observed = repeats.observed
    by_repeat, of_runs = shares(observed), shares(by_run)

    def figures(cells: FloatArray) -> dict[str, FloatArray]:
        """All figures (...) of (repeats, ..., 4) counts; those at a prevalence by their name and the prevalence."""
        found = {name: metrics.mean_defined(values) for name, values in shares(cells).items()}
        rates = found["sensitivity"], found["specificity"]
        found |= ratios(*rates)
        for prevalence in prevalences:
            found |= {f"{name}{prevalence}": each for name, each in at_prevalence(*rates, prevalence).items()}
        return found

    value, replicates = figures(observed), repeats.uncertainty(figures)
    label = classes[positive_index]
    measures = {
        name: measure(
            float(value[name]),
            replicates[name],
            patients=patients[name],
            proportion=True,
            few=few_of(name, {rate: float(value[rate]) for rate in RATES}, few),
            method=method,
            sd_runs=float(metrics.spread(of_runs[name])),
            sd_repeats=float(metrics.spread(by_repeat[name])),
            mean_runs=float(metrics.mean_defined(of_runs[name])),
            undefined=_why(name, label),
        )
        for name in SHARES
    }
    se, sp = measures["sensitivity"], measures["specificity"]

    def derived(name: str, function: Any, *more: float) -> dict[str, Any]:
        figure = float(value["".join(map(str, (name, *more)))])
        if WILSON in (se.method, sp.method) and not math.isnan(figure):
            pairs = (wilson(float(value[share]), patients[share]) for share in ("sensitivity", "specificity"))
            ends = sorted(float(function(np.array(a), np.array(b), *more)[name]) for a, b in zip(*pairs, strict=True))
            # Both at their lower, or both at their upper, end: wide, but never too narrow.
            return Measure(figure, ends[0], ends[1], WILSON_ENDS).as_json()
        return measure(
            figure,
            replicates["".join(map(str, (name, *more)))],
            patients=min(patients["sensitivity"], patients["specificity"]),
            proportion=False,
            method=method,
            bounds=(0.0, 1.0 if more else math.inf),
            undefined=_why(name, label),
        ).as_json()

    total = observed.sum(axis=1)
    mean = observed.mean(axis=0)
    return {
        "positive": label,
        "rule": rule,
        "counts": {name: round(float(count), DIGITS) for name, count in zip(CELLS, mean, strict=True)},
        "prevalence": _known(float(metrics.mean_defined(divide(observed[:, TP] + observed[:, FN], total)))),
        **{name: entry.as_json() for name, entry in measures.items()},
        **{name: derived(name, ratios) for name in RATIOS},
        "at_prevalence": {
            f"{prevalence:g}": {name: derived(name, at_prevalence, prevalence) for name in ("ppv", "npv")}
            for prevalence in prevalences
        },
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS)


def _why(name: str, label: str) -> str:
    return {
        "sensitivity": f"no images of {label}",
        "specificity": f"all images are of {label}",
        "ppv": f"no image was predicted {label}",
        "npv": f"every image was predicted {label}",
        "lr_positive": f"no image was wrongly predicted {label}, so the ratio has no upper bound",
        "lr_negative": "specificity is 0 or undefined",
    }[name]
