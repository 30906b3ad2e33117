"""Figures of an evaluation: ROC and precision-recall curves of every run, confusion matrix, calibration, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrtool.data.tables.predictions import DECISIONS
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.metrics.ranking import Ranking, mean_precision, mean_roc
from cxrtool.evaluation.plots.reliability import draw_reliability, why_no_reliability
from cxrtool.evaluation.resampling.bands import Band, curve_bands
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.tables import cell, count_of
from cxrtool.imaging.canvas import (
    BAND,
    BLUE,
    GREY,
    SERIES,
    SKY,
    VERMILION,
    draw_interval,
    legend_below,
    picture,
    shorten,
    wrapped,
    write_beside,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Summary = Mapping[str, Any]

ZOOM = 0.2
"""The inset shows this much of both axes: few false positives, few false negatives."""

WORTH = 0.04
"""An inset is drawn if the curve is so far from its lower and its upper edge in the middle, or before."""

INSET = (0.46, 0.08, 0.5, 0.5)
"""Position of the inset in its panel, in shares of its sides."""

PANEL = 3.5
COLUMNS = 3
FEW_RUNS = len(SERIES)
"""With more runs, all of them have the same colour."""

MOST_POINTS = 5000
"""Points of a curve without thinning, and with it the steps of an axis, of which a figure has far fewer pixels."""

POINTS = ("D", "^")
"""Markers of the operating points."""

_GRID = np.linspace(0.0, 1.0, 501)


@dataclass(frozen=True)
class _Point:
    """An operating point: how the class was decided, and what was measured there."""

    rule: str
    sensitivity: Mapping[str, Any]
    specificity: Mapping[str, Any]
    precision: Mapping[str, Any]


def draw_scores(scores: Scores, summary: Summary, folder: Path) -> list[Path]:
    """Draw the figures of scores and of their `metrics.json` into a folder; returns the files."""
    files = []
    if scores.kind != DECISIONS:
        files += [folder / "roc.png", folder / "precision_recall.png"]
        draw_rankings(scores, summary, *files)
    if summary["calibration"] and not why_no_reliability(summary):
        files.append(folder / "reliability.png")
        draw_reliability(scores, summary, files[-1])
    if summary["confusion"]:
        files.append(folder / "confusion.png")
        draw_confusion(summary, files[-1])
    for number, (column, groups) in enumerate(summary["per_group"].items()):
        if all(entry["accuracy"]["value"] is None for entry in groups.values()):
            # An empty column has no groups.
            continue
        # Numbered where the name of the column is not a file name.
        files.append(folder / (f"by_{column}.png" if column.isidentifier() else f"by_{number}.png"))
        draw_groups(column, groups, summary, files[-1])
    return files


def draw_rankings(scores: Scores, summary: Summary, roc: Path, precision_recall: Path) -> None:
    """Draw the ROC and the precision-recall curves into two files, one panel a class.

    Each has the curves of the runs, their mean with its interval at each point, and the operating points.
    """
    shown = _classes_shown(scores, summary)
    interval = summary["interval"]
    bands = {k: curve_bands(scores, k, seed=interval["seed"], resamples=interval["resamples"]) for k in shown}
    draw_roc(scores, summary, {k: pair[0] for k, pair in bands.items()}, roc)
    draw_precision_recall(scores, summary, {k: pair[1] for k, pair in bands.items()}, precision_recall)


def draw_roc(scores: Scores, summary: Summary, bands: Mapping[int, Band | None], path: Path) -> None:
    """ROC curves, with the upper left corner enlarged where a curve passes through it."""
    shown = list(bands)
    with picture(path, *_panels(len(shown))) as figure:
        legend = _Legend("chance")
        for axes, k in zip(_grid(figure, len(shown)), shown, strict=False):
            rankings = _rankings(scores, k)
            curves = [
                thinned(np.concatenate(([0.0], false_rate)), np.concatenate(([0.0], true_rate)))
                for false_rate, true_rate, _ in (ranking.curve() for ranking in rankings.values())
            ]
            areas = [float(ranking.areas(np.ones((len(ranking.order), 1)))[0][0]) for ranking in rankings.values()]
            styles = legend.runs(rankings, areas, alone=len(shown) == 1)
            measure = summary["per_class"][scores.classes[k]]["auc"]
            _title(axes, scores, summary, k, "AUC " + _figure(measure, len(scores.runs)))
            mean = np.concatenate(([0.0], mean_roc(curves, _GRID))) if curves else None
            panels = [axes]
            if mean is not None and _corner_is_worth_it(mean, curves, bands[k]):
                panels.append(_corner(axes))
            points = legend.points(_points(scores, summary, k))
            for panel in panels:
                panel.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
                _band(panel, bands[k], legend)
                for (x, y), style in zip(curves, styles, strict=True):
                    panel.plot(x, y, **style)
                if mean is not None and len(curves) > 1:
                    panel.plot(np.concatenate(([0.0], _GRID)), mean, color=BLUE, linewidth=2)
                for point, marker in points:
                    _mark(panel, point.specificity, point.sensitivity, marker, turned=True)
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
            axes.set(xlabel="1 - specificity (false positive rate)", ylabel="sensitivity (true positive rate)")
        legend.draw(figure)


def draw_precision_recall(scores: Scores, summary: Summary, bands: Mapping[int, Band | None], path: Path) -> None:
    """Precision over recall, up to the first point with a recall of 1; dotted: the share of the class."""
    shown = list(bands)
    with picture(path, *_panels(len(shown))) as figure:
        legend = _Legend("share of the class (guessing)")
        for axes, k in zip(_grid(figure, len(shown)), shown, strict=False):
            rankings = _rankings(scores, k)
            curves = [thinned(*ranking.curve()[1:]) for ranking in rankings.values()]
            areas = [float(ranking.areas(np.ones((len(ranking.order), 1)))[1][0]) for ranking in rankings.values()]
            styles = legend.runs(rankings, areas, alone=len(shown) == 1)
            _title(axes, scores, summary, k, f"average precision {np.mean(areas):.2f}" if areas else "no curve")
            axes.axhline(float((scores.truth == k).mean()), color=GREY, linestyle=":", linewidth=1)
            _band(axes, bands[k], legend)
            for (recall, precision), style in zip(curves, styles, strict=True):
                # The images after the last one of the class would only add a vertical line.
                end = int(np.searchsorted(recall, 1 - 1e-12)) + 1
                x, y = np.concatenate(([0.0], recall[:end])), np.concatenate((precision[:1], precision[:end]))
                axes.step(x, y, where="pre", **style)
            if len(curves) > 1:
                axes.plot(_GRID, mean_precision(curves, _GRID), color=BLUE, linewidth=2)
            for point, marker in legend.points(_points(scores, summary, k)):
                _mark(axes, point.sensitivity, point.precision, marker)
            axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall (sensitivity)", ylabel="precision (PPV)")
        legend.draw(figure)


def thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The points of a curve (n,) that a figure can show: of many, the first in each cell of the figure."""
    if len(x) <= MOST_POINTS:
        return x, y
    cells = np.stack([x, y]) * MOST_POINTS
    kept = (np.diff(np.floor(cells), axis=1) != 0).any(axis=0)
    index = np.flatnonzero(np.concatenate(([True], kept)))
    # A step is drawn to the point before it.
    index = np.unique(np.concatenate([index, np.maximum(index - 1, 0), [len(x) - 1]]))
    return x[index], y[index]


def draw_confusion(summary: Summary, path: Path) -> None:
    """Counts, and the share of each true class, as a coloured table."""
    counts = np.array(summary["confusion"], np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    count, repeats = len(counts), summary["repeats"]
    square, size = (0.95, 10) if count <= 4 else (0.72, 8)
    names = [wrapped(name, 24) for name in summary["classes"]]
    # Horizontal names below the squares where all words fit.
    level = count <= 4 and all(len(name) <= 30 and max(map(len, name.split())) <= 13 for name in summary["classes"])
    below = [wrapped(name, 13, 3) for name in summary["classes"]] if level else names
    side = max(3.2, square * count + 1.2)
    # Beside the squares are the names of the true classes; a letter is about 0.07 inches wide.
    beside = 0.07 * max(len(line) for name in names for line in name.split("\n"))
    with picture(path, side + max(1.5 if level else 1.9, 1.3 + beside), side + 0.4) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(count):
            for column in range(count):
                text = f"{counts[row, column]:.0f}\n{share[row, column]:.0%}" if totals[row] else "0"
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
        turn: dict[str, Any] = {"ha": "center"} if level else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(count), below, fontsize=9, **turn)
        axes.set_yticks(range(count), names, fontsize=9)
        # Lines between the squares, which are white where a share is small.
        axes.set_xticks(np.arange(0.5, count - 1), minor=True)
        axes.set_yticks(np.arange(0.5, count - 1), minor=True)
        axes.grid(which="minor", color="#cccccc", linewidth=0.6)
        axes.spines[:].set_visible(True)
        axes.spines[:].set(color="#cccccc")
        axes.tick_params(which="both", length=0)
        summed = f", {repeats} repeats summed" if repeats > 1 else ""
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_title(f"Confusion matrix\n{count_of(summary['images'], 'test image')}{summed}")
        bar = figure.colorbar(image, ax=axes, shrink=0.75)
        bar.set_label("share of the true class")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bar.outline.set_visible(False)


def draw_groups(column: str, groups: Mapping[str, Any], summary: Summary, path: Path) -> None:
    """Accuracy of every group with its interval; hollow markers have Wilson's interval."""
    shown = [(name, entry) for name, entry in groups.items() if entry["accuracy"]["value"] is not None]
    overall = summary["overall"]["accuracy"]["value"]
    labels = [
        f"{wrapped(name, 30)}\n{count_of(entry['images'], 'image')}, {count_of(entry['patients'], 'patient')}"
        for name, entry in shown
    ]
    lines = sum(label.count("\n") + 1 for label in labels)
    with picture(path, 6.4, 1.5 + 0.21 * lines) as figure:
        axes = figure.subplots()
        hollow = [entry["accuracy"]["method"] == "Wilson" for _, entry in shown]
        for y, (_, entry) in enumerate(shown):
            draw_interval(axes, y, entry["accuracy"], BLUE, hollow=hollow[y])
            write_beside(axes, y, cell(entry["accuracy"]))
        if overall is not None:
            axes.axvline(overall, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
            top = (min(overall, 0.95), 1.0)
            style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": VERMILION, "fontsize": 9}
            axes.annotate(f"all images {overall:.2f}", top, xycoords=("data", "axes fraction"), **style)
        axes.set_yticks(range(len(shown)), labels, fontsize=9)
        axes.set(xlim=(0, 1.01), ylim=(len(shown) - 0.5, -0.5))
        axes.set(xlabel="accuracy" + (" (hollow: Wilson's interval)" if any(hollow) else ""))
        axes.set_title(f"Accuracy by {shorten(column)}, {count_of(summary['images'], 'test image')}", pad=18)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)


class _Legend:
    """Collects what the panels of a figure show, for one legend below them."""

    def __init__(self, dotted: str) -> None:
        self.dotted, self.banded = dotted, False
        self.marks: dict[str, str] = {}
        self.count = 0
        self.named: list[tuple[str, dict[str, Any]]] = []

    def runs(self, names: Mapping[str, Any], areas: Sequence[float], *, alone: bool) -> list[dict[str, Any]]:
        """The style of the curve of each run; of a few in a single panel each has its own, and its area here."""
        count = len(names)
        self.count = max(self.count, count)
        if count == 1:
            return [{"color": BLUE, "linewidth": 2}]
        if not alone or count > FEW_RUNS:
            return [{"color": SKY, "linewidth": 0.8, "alpha": 0.45 if count > FEW_RUNS else 0.9}] * count
        styles = [{"color": colour, "linestyle": line, "linewidth": 1.1} for colour, line in SERIES[:count]]
        made = zip(names, areas, styles, strict=True)
        self.named = [(f"{name}, area {area:.3f}", style) for name, area, style in made]
        return styles

    def points(self, found: Sequence[_Point]) -> list[tuple[_Point, str]]:
        """Every operating point with its marker."""
        for point in found:
            self.marks.setdefault(point.rule, POINTS[min(len(self.marks), len(POINTS) - 1)])
        return [(point, self.marks[point.rule]) for point in found]

    def draw(self, figure: Figure) -> None:
        """Draw it below the panels."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        entries: list[Any] = []
        if self.count > 1:
            entries.append(Line2D([], [], color=BLUE, linewidth=2, label=f"mean of {self.count} runs"))
        elif self.count:
            entries.append(Line2D([], [], color=BLUE, linewidth=2, label="the model"))
        if self.banded:
            entries.append(Patch(label="95 % interval at each point", **BAND))
        for rule, marker in self.marks.items():
            style = {"color": "black", "markeredgecolor": "white", "linestyle": "none", "markersize": 8}
            entries.append(Line2D([], [], marker=marker, label=f"operating point: {rule}", **style))  # type: ignore[arg-type]
        if self.count > 1:
            each = self.named or [("one run", {"color": SKY, "linewidth": 1})]
            entries += [Line2D([], [], label=label, **line) for label, line in each]
        entries.append(Line2D([], [], color=GREY, linestyle=":", label=self.dotted))
        legend_below(figure, entries)


def _points(scores: Scores, summary: Summary, k: int) -> list[_Point]:
    """The operating points of class k: those of the positive class, otherwise that of the predicted classes."""
    name = scores.classes[k]
    points = [
        _Point(entry["rule"], entry["sensitivity"], entry["specificity"], entry["ppv"])
        for entry in summary.get("operating", ())
        if entry["positive"] == name
    ]
    if not points:
        entry = summary["per_class"][name]
        points = [_Point("predicted class", entry["sensitivity"], entry["specificity"], entry["precision"])]
    return [point for point in points if None not in (point.sensitivity["value"], point.specificity["value"])]


def _mark(axes: Axes, x: Mapping[str, Any], y: Mapping[str, Any], marker: str, *, turned: bool = False) -> None:
    """Draw an operating point with the intervals of both rates; `turned`: the axis is 1 - x."""
    if y["value"] is None:
        return

    def at(value: float) -> float:
        return 1 - value if turned else value

    style: dict[str, Any] = {"color": "black", "linewidth": 1, "zorder": 4, "clip_on": axes.get_xlim()[1] < 1}
    if x["low"] is not None:
        axes.plot([at(x["low"]), at(x["high"])], [y["value"]] * 2, **style)
    if y["low"] is not None:
        axes.plot([at(x["value"])] * 2, [y["low"], y["high"]], **style)
    style |= {"marker": marker, "markersize": 8, "markeredgecolor": "white", "linestyle": "none", "zorder": 5}
    axes.plot(at(x["value"]), y["value"], **style)


def _band(axes: Axes, band: Band | None, legend: _Legend) -> None:
    if band is not None:
        legend.banded = True
        axes.fill_between(band.x, band.low, band.high, **BAND)


def _corner_is_worth_it(mean: FloatArray, curves: Sequence[tuple[FloatArray, FloatArray]], band: Band | None) -> bool:
    """Whether the curve passes through the upper left corner, and no curve is where the inset would be."""
    middle = float(np.interp(ZOOM / 2, _GRID, mean[1:]))
    left, top = INSET[0] - 0.1, INSET[1] + INSET[3]
    lowest = [np.interp(left, x, y) for x, y in curves]
    lowest += [] if band is None else [np.interp(left, band.x, band.low)]
    return bool(middle > 1 - ZOOM + WORTH and mean[1] < 1 - WORTH and min(lowest) > top)


def _corner(axes: Axes) -> Axes:
    """The inset, and its frame in the panel; lines between both would look like curves."""
    from matplotlib.patches import Rectangle

    corner = axes.inset_axes(INSET)
    corner.set(xlim=(0, ZOOM), ylim=(1 - ZOOM, 1), xticks=[0, ZOOM / 2, ZOOM], yticks=[1 - ZOOM, 1 - ZOOM / 2, 1])
    corner.tick_params(labelsize=8)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    corner.set_title("upper left corner", fontsize=8, color=GREY, loc="center", pad=3, bbox=box)
    corner.spines[:].set(visible=True, color=GREY)
    frame: dict[str, Any] = {"fill": False, "edgecolor": GREY, "linewidth": 0.8, "linestyle": (0, (2, 2))}
    axes.add_patch(Rectangle((0, 1 - ZOOM), ZOOM, ZOOM, zorder=3, **frame))
    return corner


def _classes_shown(scores: Scores, summary: Summary) -> list[int]:
    if summary["positive"] is not None:
        return [scores.classes.index(summary["positive"])]
    # The curves of two classes are mirror images.
    return [1] if len(scores.classes) == 2 else list(range(len(scores.classes)))


def _rankings(scores: Scores, k: int) -> dict[str, Ranking]:
    """The ranking by class k in every run that has images of it and of others, by the name of the run."""
    found = {}
    for run, (repeat, fold) in enumerate(scores.runs):
        rows = scores.run == run
        positive = scores.truth[rows] == k
        if positive.any() and not positive.all():
            found[f"r{repeat or '0'}f{fold or '0'}"] = Ranking.of(scores.probabilities[rows, k], positive)
    return found


def _panels(count: int) -> tuple[float, float]:
    columns = min(count, COLUMNS)
    side = PANEL if count > 1 else 1.2 * PANEL
    return side * columns + 0.3, (side + 0.35) * -(-count // columns) + 0.75


def _grid(figure: Figure, count: int) -> list[Axes]:
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in panels[count:]:
        spare.set_visible(False)
    return panels[:count]


def _title(axes: Axes, scores: Scores, summary: Summary, k: int, figure: str) -> None:
    name = scores.classes[k]
    support = summary["per_class"][name]["support"]
    others = scores.classes[1 - k] if len(scores.classes) == 2 else "the rest"
    width = 52 if len(_classes_shown(scores, summary)) == 1 else 42
    what = wrapped(f"{shorten(name, 60)} against {shorten(others, 60)}", width, 3)
    axes.set_title(f"{what}\n{support} against {count_of(scores.images - support, 'image')}\n{figure}", fontsize=9)


def _figure(measure: Mapping[str, Any], runs: int) -> str:
    text = cell(measure) + ("" if measure["low"] is not None or measure["value"] is None else ", no interval")
    return text + (f", SD of {runs} runs {measure['sd_runs']:.2f}" if measure["sd_runs"] is not None else "")
