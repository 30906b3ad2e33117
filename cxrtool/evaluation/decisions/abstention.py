"""Abstention: the least confident images are left undecided; coverage, and accuracy of the others.

El-Yaniv & Wiener (2010), "On the Foundations of Noise-free Selective Classification"; the area under the risk-coverage
curve is the quality that Geifman et al. (2019), "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", call
AURC. The confidence limit for a coverage comes from the validation images of each run. On the test images themselves
the coverage would be exact by construction, which is not possible in practice, where patients come one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrtool.evaluation.decisions.validation import Validation
from cxrtool.evaluation.metrics import confusion as metrics
from cxrtool.evaluation.metrics.calibration import CLIP, logit
from cxrtool.evaluation.metrics.confusion import FloatArray, divide, sums_by
from cxrtool.evaluation.metrics.estimates import CELLS_AT_ONCE, FEWEST_AT_ONCE
from cxrtool.evaluation.metrics.tallies import tally
from cxrtool.evaluation.resampling.influence import Error, standard_error
from cxrtool.evaluation.resampling.intervals import RESAMPLES, Measure, draw_patients, measure, method_of
from cxrtool.evaluation.scores import Scores, distinct
from cxrtool.evaluation.sheet import cell
from cxrtool.imaging.canvas import BAND, BLUE, GREY, VERMILION, legend_below, picture

COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
FEWEST = 20
"""Validation images that a run needs for its confidence limits; with fewer they come from its test images."""

FROM_VALIDATION, FROM_TEST = "validation", "test"
_ROUND = 9


def confidence(probabilities: FloatArray, positive_index: int | None = None, threshold: float = 0.5) -> FloatArray:
    """The confidence of the decisions of one run.

    Args:
        probabilities: (n, K).
        positive_index: The positive class where a threshold decides; None where the most probable class is predicted.
        threshold: Probability from which the positive class is predicted.

    Returns:
        (n,) the highest probability in [0, 1]; where a threshold decides, the distance of the log odds to the nearest
        change of the decision: to the threshold, and below it also to the second of the other classes.

    >>> confidence(np.array([[0.7, 0.2, 0.1]])).tolist()
    [0.7]
    >>> confidence(np.array([[0.5, 0.5], [0.2, 0.8]]), 1, 0.8).round(3).tolist()
    [1.386, 0.0]
    """
    if positive_index is None:
        top: FloatArray = probabilities.max(axis=1)
        return top
    margin = logit(probabilities[:, positive_index]) - float(logit(np.array([threshold]))[0])
    others = np.sort(np.delete(probabilities, positive_index, axis=1), axis=1)
    if others.shape[1] < 2:
        return np.abs(margin)
    between = np.log(np.maximum(others[:, -1], CLIP) / np.maximum(others[:, -2], CLIP))
    return np.where(margin >= 0, margin, np.minimum(-margin, between))


def cut_for(confidences: FloatArray, coverage: float) -> float:
    """The confidence limit for a coverage: floor(n (1 - coverage)) of the n are below it, fewer where some tie.

    >>> cut_for(np.array([0.5, 0.6, 0.7, 0.8, 0.9]), 0.8)
    0.6
    """
    left = int(np.floor(round(len(confidences) * (1 - coverage), _ROUND)))
    return -np.inf if left == 0 else float(np.sort(confidences)[left])


def risk_area(confident: FloatArray, wrong: FloatArray, weights: FloatArray) -> FloatArray:
    """Area under the risk-coverage curve: the mean error rate of the most confident 1, 2, ... n images.

    Images with equal confidence are added together.

    Args:
        confident: (n,).
        wrong: (n,) 1.0 where the decision is wrong.
        weights: (n, B).

    Returns:
        (B,) in [0, 1]; lower is better, and a random order gives the error rate.

    >>> risk_area(np.array([0.9, 0.8, 0.7]), np.array([0.0, 0.0, 1.0]), np.ones((3, 1))).round(4).tolist()
    [0.1111]
    """
    order = np.argsort(-confident, kind="stable")
    ranked, own = confident[order], weights[order]
    last = np.searchsorted(-ranked, -ranked, side="right") - 1
    so_far = own.cumsum(axis=0)[last]
    errors = (own * wrong[order][:, None]).cumsum(axis=0)[last]
    risk = np.nan_to_num(divide(errors, so_far))
    return divide((own * risk).sum(axis=0), own.sum(axis=0))


def risk_influence(confident: FloatArray, wrong: FloatArray) -> FloatArray:
    """How much each image (n,) moves `risk_area`: the derivative with respect to its weight, all weights being 1."""
    _, group, sizes = np.unique(-confident, return_inverse=True, return_counts=True)
    so_far = sizes.cumsum()
    risk = np.bincount(group, wrong).cumsum() / so_far
    area = float(sizes @ risk) / len(wrong)
    # An image changes the risk of its own group and of every less confident one.
    share = (sizes / so_far)[::-1].cumsum()[::-1]
    of_risk = (sizes * risk / so_far)[::-1].cumsum()[::-1]
    moved: FloatArray = (risk[group] - area + wrong * share[group] - of_risk[group]) / len(wrong)
    return moved


def abstain(
    scores: Scores,
    validation: Validation,
    *,
    positive_index: int | None = None,
    thresholds: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Coverage and accuracy when the least confident images are left undecided: `abstention` of `metrics.json`.

    `validation` holds the validation rows of the runs, at the same temperature. `thresholds`, one a run, are given
    where they decide.
    """
    limits = list(thresholds) or [0.5] * len(scores.runs)
    thresholded = positive_index if len(thresholds) else None
    sure, cuts, sources = np.zeros(len(scores)), [], []
    for run, (pair, limit) in enumerate(zip(scores.runs, limits, strict=True)):
        rows = scores.run == run
        sure[rows] = confidence(scores.probabilities[rows], thresholded, limit)
        reference, source = sure[rows & scores.decided], FROM_TEST
        part = validation.of(pair)
        if part is not None and part.decided.sum() >= FEWEST:
            reference, source = confidence(part.probabilities, thresholded, limit)[part.decided], FROM_VALIDATION
        cuts.append([cut_for(reference, coverage) for coverage in COVERAGES])
        sources.append(source)
    limits_of = np.array(cuts)
    points = [
        _point(scores, sure >= limits_of[scores.run, j], coverage, seed, resamples)
        for j, coverage in enumerate(COVERAGES)
    ]
    area, by_chance = _area(scores, sure, seed, resamples)
    return {
        "confidence": "distance of the log odds to another decision" if len(thresholds) else "highest probability",
        "cuts_from": {name: sources.count(name) for name in (FROM_VALIDATION, FROM_TEST)},
        "points": points,
        "area_under_risk_coverage": area,
        "area_by_chance": by_chance,
    }


def _point(scores: Scores, kept: Any, wanted: float, seed: int, resamples: int) -> dict[str, Any]:
    count = len(scores.classes)
    decided = kept & scores.decided
    kind = np.where(decided, scores.truth * count + scores.predicted, count * count)
    tallies = tally(scores, kind, count * count + 1, seed=seed, resamples=resamples)
    repeats = tallies.by_repeat()
    method = method_of(by_patient=scores.by_patient, by_influence=scores.by_influence)
    present = np.unique(scores.truth)

    def figures(cells: FloatArray) -> dict[str, FloatArray]:
        level = _figures(cells, count)
        # Over all classes of the images: undefined, not averaged over fewer, where a class is never decided.
        recalls = metrics.mean_defined(level.pop("sensitivity"))
        balanced = metrics.macro(recalls, np.isin(np.arange(count), present))
        return {name: metrics.mean_defined(values) for name, values in level.items()} | {"balanced_accuracy": balanced}

    by_repeat, by_run = _figures(repeats.observed, count), _figures(tallies.observed, count)
    for level in (by_repeat, by_run):
        level["balanced_accuracy"] = metrics.macro(level["sensitivity"], np.isin(np.arange(count), present))
    values, drawn = figures(repeats.observed), repeats.uncertainty(figures)
    defined = ~np.isnan(metrics.mean_defined(by_repeat["sensitivity"]))

    def measured(name: str, proportion: bool, patients: int, why: str) -> dict[str, Any]:
        value, replicates, runs, per_repeat = values[name], drawn[name], by_run[name], by_repeat[name]
        return measure(
            float(value),
            replicates,
            patients=patients,
            proportion=proportion,
            method=method,
            sd_runs=float(metrics.spread(runs)),
            sd_repeats=float(metrics.spread(per_repeat)),
            mean_runs=float(metrics.mean_defined(runs)),
            undefined=why,
            bounds=(0.0, 1.0),
        ).as_json()

    lost = [scores.classes[k] for k in present if not defined[k]]
    left = distinct(scores.patient[decided])
    coverage = measured("coverage", True, scores.patients, "")
    if decided.all():
        coverage = Measure(1.0).as_json()
    return {
        "coverage_wanted": wanted,
        "coverage": coverage,
        "accuracy": measured("accuracy", True, left, "no image was decided"),
        "balanced_accuracy": measured("balanced_accuracy", False, left, f"no image of {', '.join(lost)} was decided"),
    }


def _figures(cells: FloatArray, count: int) -> dict[str, FloatArray]:
    confusion = cells[..., :-1].reshape(*cells.shape[:-1], count, count)
    return {
        "coverage": divide(confusion.sum(axis=(-2, -1)), cells.sum(axis=-1)),
        "accuracy": metrics.accuracy(confusion),
        "sensitivity": metrics.class_metrics(confusion)["sensitivity"],
    }


def _area(scores: Scores, sure: FloatArray, seed: int, resamples: int) -> tuple[dict[str, Any], float | None]:
    """The area within each run, averaged over the runs: confidences of different models share no scale."""
    draws = None
    if not scores.by_influence:
        draws = draw_patients(scores.strata, resamples, np.random.default_rng(seed))
    wrong = (scores.truth != scores.predicted).astype(np.float64)
    values, drawn, errors, moved = [], [], [], np.zeros(len(scores))
    for run in range(len(scores.runs)):
        rows = np.flatnonzero((scores.run == run) & scores.decided)
        if not len(rows):
            continue
        own = scores.patient[rows]
        values.append(risk_area(sure[rows], wrong[rows], np.ones((len(rows), 1)))[0])
        errors.append(float(wrong[rows].mean()))
        if draws is None:
            moved[rows] = risk_influence(sure[rows], wrong[rows])
            continue
        step = max(FEWEST_AT_ONCE, CELLS_AT_ONCE // len(rows))
        parts = [
            risk_area(sure[rows], wrong[rows], draws[own, begin : begin + step].astype(np.float64))
            for begin in range(0, resamples, step)
        ]
        drawn.append(np.concatenate(parts))
    if not values:
        return Measure(reason="no image was decided").as_json(), None
    if draws is None:
        influence = sums_by(scores.patient, moved / len(values), scores.patients)
        uncertain: FloatArray | Error = Error(float(standard_error(influence, scores.strata)))
    else:
        uncertain = metrics.mean_defined(np.stack(drawn))
    found = measure(
        float(np.mean(values)),
        uncertain,
        patients=scores.patients,
        proportion=False,
        method=method_of(by_patient=scores.by_patient, by_influence=draws is None),
        bounds=(0.0, 1.0),
        sd_runs=float(metrics.spread(np.array(values))),
        mean_runs=float(np.mean(values)),
    ).as_json()
    return found, round(float(np.mean(errors)), 10)


def draw_coverage(entry: dict[str, Any], images: int, path: Path) -> bool:
    """Plot accuracy and balanced accuracy over the coverage, from `abstention` of `metrics.json`, of so many images.

    Returns:
        Whether there was anything to draw.
    """
    points = [point for point in entry["points"] if point["accuracy"]["value"] is not None]
    if not points:
        return False
    x = np.array([point["coverage"]["value"] for point in points])
    with picture(path, 5.6, 4.8) as figure:
        axes = figure.subplots()
        shown = [point["accuracy"] for point in points]
        banded = [k for k, measured in enumerate(shown) if measured["low"] is not None]
        low, high = ([shown[k][end] for k in banded] for end in ("low", "high"))
        axes.fill_between(x[banded], low, high, label="95 % interval of the accuracy", **BAND)
        values = [measured["value"] for measured in shown]
        axes.plot(x, values, color=BLUE, marker="o", linewidth=2, label="accuracy", clip_on=False, zorder=3)
        known = [(a, point["balanced_accuracy"]["value"]) for a, point in zip(x, points, strict=True)]
        known = [(a, b) for a, b in known if b is not None]
        if known:
            axes.plot(
                *zip(*known, strict=True),
                color=VERMILION,
                linestyle="--",
                marker="s",
                markersize=4,
                label="balanced accuracy",
                clip_on=False,
            )
        axes.axhline(values[0], color=GREY, linestyle=":", linewidth=1, label="all images decided")
        floor = min([*low, *values, *(b for _, b in known)])
        left = min(0.45, float(x.min()) - 0.02)
        axes.set(xlim=(1.0, left), ylim=(max(0.0, floor - 0.05), 1.02))
        axes.set(xlabel="share of images decided (most confident first)", ylabel="accuracy of the decided images")
        area = cell(entry["area_under_risk_coverage"], 3)
        axes.set_title(
            f"Least confident of {images} test images left undecided\narea under the risk-coverage curve {area}"
        )
        legend_below(figure, axes.get_legend_handles_labels()[0], 2)
    return True
