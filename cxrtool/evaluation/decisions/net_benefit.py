"""Net benefit of acting on the probability of a model, beside acting on all images and on none.

Vickers & Elkin (2006), "Decision Curve Analysis: A Novel Method for Evaluating Prediction Models": a threshold risk of
t weighs one true positive like (1 - t) / t false positives, so that

    net benefit(t) = true positives / n - false positives / n * t / (1 - t).

It is computed within each run and averaged over the runs. At a prevalence other than that of the test images, the
probabilities are adjusted to the prevalence (odds times a constant: only the prior changes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from cxrtool.evaluation.fusion import prior_correct
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.confusion import FloatArray, divide
from cxrtool.evaluation.metrics.tallies import influences, tally
from cxrtool.evaluation.resampling.influence import skewness, standard_error
from cxrtool.evaluation.resampling.intervals import DIGITS, RESAMPLES, UNDEFINED_SHARE, method_of, percents, reach
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.sheet import count_of
from cxrtool.imaging.canvas import BAND, BLUE, GREY, VERMILION, legend_below, picture, shorten

THRESHOLDS = (0.01, 0.02, 0.03, 0.04, *(round(0.05 * k, 2) for k in range(1, 20)))
"""Threshold risks; more of them are low, for low prevalences."""

PANEL = 4.2
CURVES = ("act on the model", "act on all", "act on none")
INTERVAL = "95 % interval"


def net_benefit(
    true_rate: FloatArray, false_rate: FloatArray, prevalence: FloatArray, threshold: FloatArray
) -> FloatArray:
    """Net benefit, in true positives per image, from the true and the false positive rate.

    >>> net_benefit(np.array(0.9), np.array(0.2), np.array(0.25), np.array(0.2)).round(4).item()
    0.1875
    """
    gained, lost = true_rate * prevalence, false_rate * (1 - prevalence)
    benefit: FloatArray = gained - lost * threshold / (1 - threshold)
    return benefit


def decision_curve(
    scores: Scores, positive_index: int, *, prevalences: Sequence[float] = (), seed: int = 0, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """`decision_curve` of `metrics.json`: one entry for the observed prevalence and one for each other in (0, 1)."""
    return [_curve(scores, positive_index, stated, seed, resamples) for stated in (None, *prevalences)]


def _curve(scores: Scores, positive_index: int, stated: float | None, seed: int, resamples: int) -> dict[str, Any]:
    positive = scores.truth == positive_index
    own = scores.probabilities[:, positive_index]
    runs = len(scores.runs)
    sizes = np.bincount(scores.run, minlength=runs).astype(np.float64)
    share = divide(np.bincount(scores.run, positive, minlength=runs).astype(np.float64), sizes)
    if stated is not None:
        # A run with one class has no prior to correct; its net benefit is undefined below.
        known = np.where((share > 0) & (share < 1), share, stated)[scores.run]
        own = prior_correct(own, np.full(len(own), stated), known)
    count = len(THRESHOLDS)
    passed = np.searchsorted(THRESHOLDS, own, side="right")
    kind = passed + np.where(positive, 0, count + 1)
    tallies = tally(scores, kind, 2 * (count + 1), seed=seed, resamples=resamples)

    def mean(cells: FloatArray) -> FloatArray:
        return metrics.mean_defined(_benefits(cells, stated))

    value = mean(tallies.observed)
    if not scores.by_influence:
        drawn = mean(tallies.drawn)
        lost = np.isnan(drawn).mean(axis=0)
        bounded = bool((lost <= UNDEFINED_SHARE).all())
        low, high = np.nanpercentile(drawn, percents(scores.patients), axis=0) if bounded else (None, None)
    else:
        moved, steps = influences(scores, kind, tallies.observed, mean), reach(scores.patients)
        error = standard_error(moved, scores.strata)
        # Few images decide at high thresholds, and their resamples are skewed: Cornish & Fisher 1938, first term.
        middle = value + error * skewness(moved, scores.strata) * (steps**2 - 1) / 6
        low, high = (None, None) if np.isnan(value).any() else (middle - steps * error, middle + steps * error)
    limits = np.array(THRESHOLDS)
    rate = share if stated is None else np.full(runs, stated)
    one = np.ones(1)
    treat_all = np.mean([net_benefit(one, one, np.array([r]), limits) for r in rate], axis=0)
    undefined = bool(np.isnan(value).any())
    best = [] if undefined else _ranges(value > np.maximum(treat_all, 0.0))
    return {
        "prevalence": round(float(rate.mean()), DIGITS),
        "stated": stated is not None,
        "thresholds": list(THRESHOLDS),
        "net_benefit": _listed(value),
        "low": None if low is None else _listed(low),
        "high": None if high is None else _listed(high),
        "method": None if low is None else method_of(by_patient=scores.by_patient, by_influence=scores.by_influence),
        "treat_all": _listed(treat_all),
        "best_between": best,
        "reason": "no run has images of both the class and the rest" if undefined else None,
    }


def _benefits(cells: FloatArray, stated: float | None) -> FloatArray:
    """(runs, ..., thresholds) net benefit, from counts of images by the number of thresholds that they reach."""
    count = len(THRESHOLDS)
    positives, negatives = cells[..., : count + 1], cells[..., count + 1 :]
    reached = [part[..., ::-1].cumsum(axis=-1)[..., ::-1] for part in (positives, negatives)]
    yes, no = (part[..., :1] for part in reached)
    limits = np.array(THRESHOLDS)
    if stated is None:
        total = yes + no
        benefit: FloatArray = divide(reached[0][..., 1:], total) - divide(reached[1][..., 1:], total) * limits / (
            1 - limits
        )
        return benefit
    rates = divide(reached[0][..., 1:], yes), divide(reached[1][..., 1:], no)
    return net_benefit(*rates, np.asarray(stated), limits)


def _ranges(better: Any) -> list[list[float]]:
    """First and last threshold of each range in which `better` is true."""
    found = []
    for holds, group in groupby(enumerate(better), key=lambda pair: bool(pair[1])):
        indices = [index for index, _ in group]
        if holds:
            found.append([THRESHOLDS[indices[0]], THRESHOLDS[indices[-1]]])
    return found


def _listed(values: FloatArray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), DIGITS) + 0.0 for value in values]


def draw_decision_curve(entries: Sequence[Mapping[str, Any]], positive: str, images: int, path: Path) -> None:
    """Plot net benefit over the threshold risk, from `decision_curve` of `metrics.json`, one panel a prevalence.

    `images` is the number of test images.
    """
    with picture(path, PANEL * len(entries) + 0.4, 4.8) as figure:
        panels = figure.subplots(1, len(entries), squeeze=False)[0]
        for axes, entry in zip(panels, entries, strict=True):
            x = np.array(entry["thresholds"])
            model = np.array([np.nan if v is None else v for v in entry["net_benefit"]])
            if entry["low"] is not None:
                axes.fill_between(x, entry["low"], entry["high"], label=INTERVAL, **BAND)
            axes.plot(x, model, color=BLUE, linewidth=2, label=CURVES[0])
            axes.plot(x, entry["treat_all"], color=VERMILION, linestyle="--", linewidth=1.2, label=CURVES[1])
            axes.axhline(0.0, color=GREY, linestyle=":", linewidth=1.2, label=CURVES[2])
            top = entry["prevalence"]
            bottom = min(-0.12 * top, float(np.nanmin(model)) if not np.isnan(model).all() else 0.0)
            height = max([1.12 * top, *(1.03 * end for end in entry["high"] or ())])
            axes.set(xlim=(0, 1), ylim=(max(bottom, -top), height))
            axes.set(
                xlabel=f"threshold risk of {shorten(positive, 16)}", ylabel="net benefit (true positives per image)"
            )
            kind = "assumed" if entry["stated"] else "observed"
            axes.set_title(f"{kind} prevalence of {shorten(positive, 14)} {top:.3g}")
        # Below the panels: inside them a curve can be anywhere.
        legend_below(figure, panels[0].get_legend_handles_labels()[0])
        figure.suptitle(f"Decision curve, {count_of(images, 'test image')}", x=0.01, ha="left")
