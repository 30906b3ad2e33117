"""The operating point of one class against the rest: the 2x2 table and what a reader at the bedside asks of it.

Counts are pooled over the folds of a repeat and averaged over the repeats, and so are sensitivity, specificity and the
predictive values; likelihood ratios, and predictive values at a stated prevalence (Bayes' theorem), follow from
sensitivity and specificity as they are shown, and in each resample from those of the resample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cxrtool.evaluation.counts import draw_counts
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray, divide
from cxrtool.evaluation.metrics.tallies import NOT_COUNTED, tally
from cxrtool.evaluation.resampling.intervals import (
    DIGITS,
    FEW_PATIENTS,
    IMAGES,
    PATIENTS,
    RESAMPLES,
    WILSON,
    Measure,
    measure,
    wilson,
)
from cxrtool.evaluation.scores import Scores

TP, FN, FP, TN = range(4)
CELLS = ("tp", "fn", "fp", "tn")
SHARES = ("sensitivity", "specificity", "ppv", "npv")
RATIOS = ("lr_positive", "lr_negative")
WILSON_ENDS = "Wilson's ends of sensitivity and specificity"
LIKELIEST, GIVEN = "likeliest class", "as predicted"
"""The rule of decisions as they stand in the predictions: the likeliest class, or another that only they know."""


def operating_point(
    scores: Scores,
    about: int,
    *,
    rule: str | None = None,
    prevalences: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point of the decisions in `scores`.

    Args:
        scores: What is evaluated; what was left undecided does not count.
        about: The positive class; the others together are negative.
        rule: What the decisions were made by; None takes what they look like.
        prevalences: Shares of the positive class, in (0, 1), at which predictive values are wanted.
        seed: Of the resamples.
        resamples: How many.

    Returns:
        An entry of `operating` in `metrics.json`.
    """
    true, called = scores.truth == about, scores.predicted == about
    kind = np.where(true, np.where(called, TP, FN), np.where(called, FP, TN))
    made = scores.decided
    tallies = tally(scores, np.where(made, kind, NOT_COUNTED), len(CELLS), seed=seed, resamples=resamples)
    repeats = tallies.by_repeat()
    likeliest = np.array_equal(scores.predicted[made], scores.probabilities[made].argmax(axis=1))
    sizes = {"sensitivity": true, "specificity": ~true, "ppv": called, "npv": ~called}
    patients = {name: len(np.unique(scores.patient[mask & made])) for name, mask in sizes.items()}
    rule = rule or (LIKELIEST if likeliest else GIVEN)
    return _entry(
        scores.classes,
        about,
        rule,
        prevalences,
        repeats.observed,
        repeats.drawn,
        patients,
        tallies.observed,
        few=FEW_PATIENTS,
        method=PATIENTS if scores.by_patient else IMAGES,
    )


def operating_counts(
    classes: Sequence[str],
    counts: FloatArray,
    about: int,
    *,
    prevalences: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The operating point of a confusion matrix, as papers print them, with Wilson's intervals.

    Args:
        classes: K names.
        counts: (K, K), rows = true.
        about: The positive class.
        prevalences: As in `operating_point`.
        seed: Of the resamples.
        resamples: How many.
    """
    observed = _cells(counts, about)[None]
    drawn = _cells(draw_counts(counts, resamples, np.random.default_rng(seed)), about)[None]
    tp, fn, fp, tn = (int(count) for count in observed[0])
    images = {"sensitivity": tp + fn, "specificity": fp + tn, "ppv": tp + fp, "npv": fn + tn}
    return _entry(classes, about, GIVEN, prevalences, observed, drawn, images, observed, few=math.inf, method=IMAGES)


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
    """Predictive values where another share of the images is positive, by Bayes' theorem.

    They hold if sensitivity and specificity are the same there, which a change of the kind of patients may undo.

    >>> at_prevalence(np.array(0.9), np.array(0.9), 0.1)["ppv"].round(4).item()
    0.5
    """
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return {
        "ppv": divide(true_positive, true_positive + false_positive),
        "npv": divide(true_negative, true_negative + false_negative),
    }


def _cells(confusion: FloatArray, about: int) -> FloatArray:
    """(..., K, K) counts to the (..., 4) of one class against the rest."""
    tp = confusion[..., about, about]
    fn = confusion[..., about, :].sum(axis=-1) - tp
    fp = confusion[..., :, about].sum(axis=-1) - tp
    return np.stack([tp, fn, fp, confusion.sum(axis=(-2, -1)) - tp - fn - fp], axis=-1)


def _entry(
    classes: Sequence[str],
    about: int,
    rule: str,
    prevalences: Sequence[float],
    observed: FloatArray,
    drawn: FloatArray,
    patients: dict[str, int],
    by_run: FloatArray,
    *,
    few: float,
    method: str,
) -> dict[str, Any]:
    """Put together what (repeats, 4) counts, (repeats, B, 4) resamples and (runs, 4) counts of the runs tell."""
    by_repeat, of_runs = shares(observed), shares(by_run)
    value = {name: metrics.mean_defined(values) for name, values in by_repeat.items()}
    replicates = {name: metrics.mean_defined(values) for name, values in shares(drawn).items()}
    label = classes[about]
    told = {
        name: measure(
            float(value[name]),
            replicates[name],
            patients=patients[name],
            proportion=True,
            few=few,
            method=method,
            sd_runs=float(metrics.spread(of_runs[name])),
            sd_repeats=float(metrics.spread(by_repeat[name])),
            undefined=_why(name, label),
        )
        for name in SHARES
    }
    se, sp = told["sensitivity"], told["specificity"]

    def follow(name: str, function: Any, *more: float) -> dict[str, Any]:
        """What follows from sensitivity and specificity: the figure as JSON."""
        figure = float(function(value["sensitivity"], value["specificity"], *more)[name])
        if WILSON in (se.method, sp.method) and not math.isnan(figure):
            pairs = (wilson(float(value[share]), patients[share]) for share in ("sensitivity", "specificity"))
            ends = sorted(float(function(np.array(a), np.array(b), *more)[name]) for a, b in zip(*pairs, strict=True))
            # Both at once at their lower, or upper, end: wide, but never too narrow.
            return Measure(figure, ends[0], ends[1], WILSON_ENDS).as_json()
        return measure(
            figure,
            function(replicates["sensitivity"], replicates["specificity"], *more)[name],
            patients=min(patients["sensitivity"], patients["specificity"]),
            proportion=False,
            method=method,
            undefined=_why(name, label),
        ).as_json()

    total = observed.sum(axis=1)
    mean = observed.mean(axis=0)
    return {
        "positive": label,
        "rule": rule,
        "counts": {name: round(float(count), DIGITS) for name, count in zip(CELLS, mean, strict=True)},
        "prevalence": _known(float(metrics.mean_defined(divide(observed[:, TP] + observed[:, FN], total)))),
        **{name: entry.as_json() for name, entry in told.items()},
        **{name: follow(name, ratios) for name in RATIOS},
        "at_prevalence": {
            f"{prevalence:g}": {name: follow(name, at_prevalence, prevalence) for name in ("ppv", "npv")}
            for prevalence in prevalences
        },
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, DIGITS)


def _why(name: str, label: str) -> str:
    return {
        "sensitivity": f"no images of {label}",
        "specificity": f"no images but of {label}",
        "ppv": f"nothing was called {label}",
        "npv": f"everything was called {label}",
        "lr_positive": f"no image was wrongly called {label}, so the ratio has no upper bound",
        "lr_negative": "specificity is 0 or undefined",
    }[name]
