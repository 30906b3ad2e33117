"""The calibration plot (reliability diagram): what was observed against what was predicted."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics import calibration
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.intervals import Measure
from cxrtool.evaluation.resampling.means import mean_over_patients
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.tables import cell, count_of
from cxrtool.imaging.canvas import BLUE, GREY, SKY, legend_below, picture, shorten

Summary = Mapping[str, Any]

IMAGES_PER_BIN = 20
"""Fewest images of a bin: with fewer, its interval is wider than most errors of calibration."""

FEWEST_BINS = 3
WIDTHS, STEPS = 10, 20
"""Bins of equal width before they are merged, and bars of the histogram, both from 0 to 1."""


def why_no_reliability(summary: Summary) -> str:
    """A sentence that says why there is no calibration plot; empty where there is one, or nothing to calibrate.

    >>> why_no_reliability({"calibration": {}, "images": 12})
    ''
    >>> why_no_reliability({"calibration": {"ece_if_calibrated": 0.1}, "images": 12})
    'No calibration plot: 12 test images are too few for 3 bins of 20.'
    """
    if not summary["calibration"] or summary["images"] >= FEWEST_BINS * IMAGES_PER_BIN:
        return ""
    tested = count_of(summary["images"], "test image")
    return f"No calibration plot: {tested} are too few for {FEWEST_BINS} bins of {IMAGES_PER_BIN}."


def draw_reliability(scores: Scores, summary: Summary, path: Path) -> None:
    """Observed against predicted in bins of equal size, with intervals over patients, above the histogram.

    Of the probability of the positive class, or of the second of two classes; of three classes and more of the highest
    probability, and the share of correct classes. The predictions of all runs are in the same bins, which have equal
    widths, but neighbours are merged until each has enough images. (The bins of the ECE have equal sizes.)
    """
    k = _class_shown(scores, summary)
    if k is None:
        predicted, observed = calibration.top_label(scores.probabilities, scores.truth)
    else:
        predicted, observed = scores.probabilities[:, k], (scores.truth == k).astype(np.float64)
    bins = merged_bins(predicted, scores.image)
    found = [_bin(predicted, observed, scores, bins == one, summary["interval"]["seed"]) for one in np.unique(bins)]
    lowest = 0.0 if k is not None else np.floor(10 / len(scores.classes)) / 10
    with picture(path, 4.9, 6.2) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="perfectly calibrated")
        x = [mean for mean, _ in found]
        y = [measure.value or 0.0 for _, measure in found]
        axes.plot(x, y, color=BLUE, linewidth=1, zorder=2)
        for mean, measure in found:
            if measure.low is not None:
                axes.plot([mean, mean], [measure.low, measure.high], color=BLUE, linewidth=1.2, zorder=2)
        axes.plot(
            x,
            y,
            color=BLUE,
            marker="o",
            linestyle="none",
            markersize=6,
            clip_on=False,
            zorder=3,
            label="bin, with 95 % interval",
        )
        bottom = min([lowest, *(np.floor(10 * (measure.low or 0.0)) / 10 for _, measure in found)])
        axes.set(ylim=(bottom - 0.02, 1.02), xlim=(lowest - 0.02, 1.02))
        axes.set_title(_title(scores, summary, k, np.bincount(bins)), fontsize=9)
        edges = np.linspace(0.0, 1.0, STEPS + 1)
        if k is None:
            axes.set(ylabel="share of correct classes")
            below.hist(predicted, edges, color=SKY, edgecolor="white", linewidth=0.5)
            below.set(xlabel="predicted probability of the predicted class")
        else:
            name = shorten(scores.classes[k], 30)
            axes.set(ylabel=f"observed share of {name}")
            parts = [predicted[observed == 1], predicted[observed == 0]]
            below.hist(
                parts,
                edges,
                stacked=True,
                color=[BLUE, SKY],
                edgecolor="white",
                linewidth=0.5,
                label=[f"images of {name}", "other images"],
            )
            below.set(xlabel=f"predicted probability of {name}")
        below.set(ylabel="predictions" if len(scores) > scores.images else "images")
        below.yaxis.get_major_locator().set_params(integer=True)
        legend_below(figure, [entry for one in (axes, below) for entry in one.get_legend_handles_labels()[0]], 2)


def merged_bins(predicted: FloatArray, image: IntArray) -> IntArray:
    """Bins (n,) of equal width, merged from the lowest up until each has `IMAGES_PER_BIN` distinct images.

    Too few at the upper end join the bin below.

    Args:
        predicted: (n,) in [0, 1].
        image: (n,) index of the image of each prediction.

    >>> merged_bins(np.linspace(0, 0.999, 40), np.arange(40)).tolist() == [0] * 20 + [1] * 20
    True
    """
    cell = np.minimum((predicted * WIDTHS).astype(np.intp), WIDTHS - 1)
    bins, current, held = np.zeros(len(predicted), np.intp), 0, np.zeros(0, np.intp)
    for one in np.unique(cell):
        bins[cell == one] = current
        held = np.union1d(held, image[cell == one])
        if len(held) >= IMAGES_PER_BIN:
            current, held = current + 1, held[:0]
    return np.minimum(bins, max(current - 1, 0))


def _bin(
    predicted: FloatArray, observed: FloatArray, scores: Scores, rows: NDArray[np.bool_], seed: int
) -> tuple[float, Measure]:
    """Mean prediction of a bin, and what was observed, with its interval."""
    shown = mean_over_patients(observed[rows], scores.patient[rows], seed, proportion=True, many=scores.many)
    return float(predicted[rows].mean()), shown


def _class_shown(scores: Scores, summary: Summary) -> int | None:
    if summary["positive"] is not None:
        return scores.classes.index(summary["positive"])
    return 1 if len(scores.classes) == 2 else None


def _title(scores: Scores, summary: Summary, k: int | None, sizes: IntArray) -> str:
    sizes = sizes[sizes > 0]
    what = "the predicted class" if k is None else shorten(scores.classes[k], 40)
    runs = f" from {len(scores.runs)} runs" if len(scores.runs) > 1 else ""
    unit = "prediction" if len(scores) > scores.images else "image"
    size = (
        count_of(int(sizes.min()), unit)
        if sizes.min() == sizes.max()
        else f"{sizes.min()} to {count_of(int(sizes.max()), unit)}"
    )
    lines = [
        f"Calibration of the probability of {what}",
        f"{count_of(scores.images, 'test image')}{runs}, {count_of(len(sizes), 'bin')} of {size}",
    ]
    if k is None:
        expected = summary["calibration"]["ece_if_calibrated"]
        lines.append(f"ECE {cell(summary['overall']['ece'])}; if perfectly calibrated about {expected:.2f}")
    else:
        fit = summary["calibration"]["per_class"][scores.classes[k]]
        lines.append(f"slope {_fitted(fit['slope'])}, intercept {_fitted(fit['intercept'])}")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 64))


def _fitted(measure: Mapping[str, Any]) -> str:
    return "undefined" if measure["value"] is None else cell(measure)
