"""Figures of an evaluation: ROC and precision-recall curves of every run, confusion matrix, calibration, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrtool.data.tables.predictions import DECISIONS
from cxrtool.evaluation.metrics import calibration
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.evaluation.metrics.ranking import Ranking, mean_precision, mean_roc
from cxrtool.evaluation.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, picture, shorten
from cxrtool.evaluation.scores import Scores
from cxrtool.evaluation.tables import cell, count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Summary = Mapping[str, Any]

ZOOM = 0.2
"""The inset shows this much of both axes: few false positives, few false negatives."""

RUN_COLOURS = (SKY, VERMILION, GREEN, ORANGE, PURPLE)
"""For a few runs with a colour each; their mean is blue."""

PANEL = 3.5
COLUMNS = 3
FEW_RUNS = 5
_GRID = np.linspace(0.0, 1.0, 501)


def draw_scores(scores: Scores, summary: Summary, folder: Path) -> list[Path]:
    """Draw the figures of scores and of their `metrics.json` into a folder; returns the files."""
    files = []
    if scores.kind != DECISIONS:
        files += [folder / "roc.png", folder / "precision_recall.png"]
        draw_roc(scores, summary, files[0])
        draw_precision_recall(scores, summary, files[1])
    if summary["calibration"]:
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


def draw_roc(scores: Scores, summary: Summary, path: Path) -> None:
    """ROC curve of every run and their mean, one panel a class, with the upper left corner enlarged."""
    shown = _classes_shown(scores, summary)
    single: list[tuple[str, dict[str, Any]]] = []
    with picture(path, *_panels(len(shown))) as figure:
        for axes, k in zip(_grid(figure, len(shown)), shown, strict=False):
            rankings = _rankings(scores, k)
            curves = [ranking.curve()[:2] for ranking in rankings.values()]
            # One class and a few runs: each has a colour, and its area in the legend, as in papers.
            styles = [_thin(len(curves)) for _ in curves]
            if len(shown) == 1 and 1 < len(curves) <= FEW_RUNS:
                styles = [{"color": colour, "linewidth": 1.1} for colour in RUN_COLOURS[: len(curves)]]
                areas = [float(ranking.areas(np.ones((len(ranking.order), 1)))[0][0]) for ranking in rankings.values()]
                named = zip(rankings, areas, styles, strict=True)
                single = [(f"{name} {area:.3f}", style) for name, area, style in named]
            measure = summary["per_class"][scores.classes[k]]["auc"]
            _title(axes, scores, summary, k, f"AUC {cell(measure)}", measure)
            corner = None
            if measure["value"] is not None and measure["value"] > 0.75:
                # A useful curve never reaches the area below the diagonal.
                corner = axes.inset_axes((0.46, 0.08, 0.5, 0.5))
                corner.set(xlim=(0, ZOOM), ylim=(1 - ZOOM, 1), xticks=[0, ZOOM / 2, ZOOM], yticks=[1 - ZOOM, 1])
                corner.tick_params(labelsize=8)
                corner.spines[["top", "right"]].set_visible(True)
                for spine in corner.spines.values():
                    spine.set_color(GREY)
                axes.indicate_inset_zoom(corner, edgecolor=GREY, alpha=0.5, linewidth=0.8)
            for panel in (axes, corner) if corner else (axes,):
                panel.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
                for (false_rate, true_rate), style in zip(curves, styles, strict=True):
                    x, y = np.concatenate(([0.0], false_rate)), np.concatenate(([0.0], true_rate))
                    panel.plot(x, y, **style)
                if len(curves) > 1:
                    mean = np.concatenate(([0.0], mean_roc(curves, _GRID)))
                    panel.plot(np.concatenate(([0.0], _GRID)), mean, color=BLUE, linewidth=2)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="1 - specificity", ylabel="sensitivity")
        _legend(figure, len(scores.runs), "chance", single)


def draw_precision_recall(scores: Scores, summary: Summary, path: Path) -> None:
    """Precision over recall of every run and their mean, one panel a class; dotted: the share of that class."""
    shown = _classes_shown(scores, summary)
    with picture(path, *_panels(len(shown))) as figure:
        for axes, k in zip(_grid(figure, len(shown)), shown, strict=False):
            rankings = list(_rankings(scores, k).values())
            curves = [ranking.curve()[1:] for ranking in rankings]
            areas = [float(ranking.areas(np.ones((len(ranking.order), 1)))[1][0]) for ranking in rankings]
            text = f"average precision {np.mean(areas):.2f}" if areas else "average precision -"
            _title(axes, scores, summary, k, text, None)
            axes.axhline(float((scores.truth == k).mean()), color=GREY, linestyle=":", linewidth=1)
            for recall, precision in curves:
                x, y = np.concatenate(([0.0], recall)), np.concatenate((precision[:1], precision))
                axes.step(x, y, where="pre", **_thin(len(curves)))
            if len(curves) > 1:
                axes.plot(_GRID, mean_precision(curves, _GRID), color=BLUE, linewidth=2)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall (sensitivity)", ylabel="precision")
        _legend(figure, len(scores.runs), "share of the class")


def draw_confusion(summary: Summary, path: Path) -> None:
    """Counts, and the share of each true class, as a coloured table."""
    classes = [shorten(name, 16) for name in summary["classes"]]
    counts = np.array(summary["confusion"], np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    count, repeats = len(classes), summary["repeats"]
    side = max(3.9, 0.95 * count + 1.4)
    size = 10 if count <= 6 else 8
    with picture(path, side + 0.9, side) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(count):
            for column in range(count):
                text = f"{counts[row, column]:.0f}\n{share[row, column]:.0%}" if totals[row] else "0"
                colour = "white" if share[row, column] > 0.55 else "black"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
        turn = 45 if count > 3 or max(map(len, classes)) > 10 else 0
        axes.set_xticks(range(count), classes, rotation=turn, ha="right" if turn else "center", rotation_mode="anchor")
        axes.set_yticks(range(count), classes)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        summed = f", {repeats} repeats summed" if repeats > 1 else ""
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(f"Confusion matrix\n{summary['images']} images{summed}")
        bar = figure.colorbar(image, ax=axes, shrink=0.75)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)


def draw_reliability(scores: Scores, summary: Summary, path: Path) -> None:
    """Accuracy over confidence in bins of equal mass, one line a run and their mean, above the histogram."""
    lines: list[tuple[FloatArray, FloatArray]] = []
    confidences = []
    # The same number of bins in every run, so that the runs have a mean.
    count = calibration.bin_count(int(np.bincount(scores.run).min()))
    for run in range(len(scores.runs)):
        rows = scores.run == run
        confidence, hit = calibration.top_label(scores.probabilities[rows], scores.truth[rows])
        membership = calibration.bin_membership(calibration.equal_mass_bins(confidence, count))
        mass = membership.sum(axis=1)
        lines.append((membership @ confidence / mass, membership @ hit / mass))
        confidences.append(confidence)
    lowest = np.floor(10 * min(confidence.min() for confidence in confidences)) / 10
    ece = summary["overall"]["ece"]
    expected = summary["calibration"]["ece_if_calibrated"]
    with picture(path, 4.9, 5.4) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="perfect")
        several = len(lines) > 1
        for number, (x, y) in enumerate(lines):
            label = ("one run" if several else "in bins of equal mass") if number == 0 else None
            # Many runs are drawn without lines, which would hide one another.
            dots: dict[str, Any] = {"marker": "o", "markersize": 3 if several else 5, "clip_on": False}
            dots |= {"linestyle": "none"} if len(lines) > FEW_RUNS else {}
            axes.plot(x, y, label=label, **_thin(len(lines)) | dots)
        bins = {len(x) for x, _ in lines}
        if several and len(bins) == 1:
            x, y = (np.mean([line[i] for line in lines], axis=0) for i in (0, 1))
            axes.plot(x, y, color=BLUE, marker="o", linewidth=2, label=f"mean of {len(lines)} runs", clip_on=False)
        axes.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(lowest, 1.0))
        axes.set_title(
            f"Calibration: accuracy over confidence, {summary['images']} images\n"
            f"ECE {cell(ece)}; perfectly calibrated: about {expected:.2f}"
        )
        axes.legend(loc="lower right")
        edges = np.linspace(lowest, 1.0, 21)
        height = np.mean([np.histogram(confidence, edges)[0] / len(confidence) for confidence in confidences], axis=0)
        below.bar(edges[:-1], height, np.diff(edges), align="edge", color=SKY, edgecolor="white", linewidth=0.5)
        below.set(xlabel="confidence (highest probability)", ylabel="share of\nimages")


def draw_groups(column: str, groups: Mapping[str, Any], summary: Summary, path: Path) -> None:
    """Accuracy of every group with its interval; hollow markers have Wilson's interval."""
    shown = [(name, entry) for name, entry in groups.items() if entry["accuracy"]["value"] is not None]
    overall = summary["overall"]["accuracy"]["value"]
    with picture(path, 6.4, 1.75 + 0.42 * len(shown)) as figure:
        axes = figure.subplots()
        wilson = False
        for y, (_, entry) in enumerate(shown):
            measure = entry["accuracy"]
            hollow = measure["method"] == "Wilson"
            wilson = wilson or hollow
            if measure["low"] is not None:
                axes.plot([measure["low"], measure["high"]], [y, y], color=BLUE, linewidth=2)
            face = "white" if hollow else BLUE
            axes.plot(measure["value"], y, "o", color=BLUE, markersize=7, markerfacecolor=face, clip_on=False)
            axes.annotate(
                cell(measure), (1.03, y), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
            )
        if overall is not None:
            axes.axvline(overall, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
            top = (min(overall, 0.95), 1.0)
            style: dict[str, Any] = {"ha": "center", "va": "bottom", "color": VERMILION, "fontsize": 9}
            axes.annotate(f"all images {overall:.2f}", top, xycoords=("data", "axes fraction"), **style)
        labels = [
            f"{shorten(name)}\n{count_of(entry['images'], 'image')}, {count_of(entry['patients'], 'patient')}"
            for name, entry in shown
        ]
        axes.set_yticks(range(len(shown)), labels, fontsize=9)
        axes.set(xlim=(0, 1.01), ylim=(len(shown) - 0.5, -0.5), xlabel="accuracy" + ("   (hollow: Wilson)" * wilson))
        axes.set_title(f"Accuracy by {shorten(column)}", pad=18)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)


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
    return side * columns + 0.3, (side + 0.25) * -(-count // columns) + 0.35


def _grid(figure: Figure, count: int) -> list[Axes]:
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for spare in panels[count:]:
        spare.set_visible(False)
    return panels[:count]


def _title(axes: Axes, scores: Scores, summary: Summary, k: int, figure: str, measure: Any) -> None:
    name = scores.classes[k]
    support = summary["per_class"][name]["support"]
    spread = measure["sd_runs"] if measure else None
    behind = f", SD of {len(scores.runs)} runs {spread:.2f}" if spread is not None else ""
    two = len(scores.classes) == 2
    others = shorten(scores.classes[1 - k], 14) if two else "the rest"
    axes.set_title(
        f"{shorten(name, 14 if two else 18)} ({support}) against {others} ({scores.images - support})\n{figure}{behind}"
    )


def _thin(runs: int) -> dict[str, Any]:
    if runs == 1:
        return {"color": BLUE, "linewidth": 2}
    return {"color": SKY, "linewidth": 0.8 if runs > FEW_RUNS else 1.1, "alpha": 0.45 if runs > FEW_RUNS else 0.9}


def _legend(figure: Figure, runs: int, dotted: str, single: Sequence[tuple[str, dict[str, Any]]] = ()) -> None:
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=GREY, linestyle=":", label=dotted)]
    if runs > 1:
        entries.insert(0, Line2D([], [], color=BLUE, linewidth=2, label=f"mean of {runs} runs"))
        each = single or [("one run", {"color": SKY, "linewidth": 1})]
        entries[1:1] = [Line2D([], [], label=label, **line) for label, line in each]
    style: dict[str, Any] = {"title": "area under each curve", "ncols": 3} if single else {"ncols": len(entries)}
    figure.legend(handles=entries, loc="outside lower center", columnspacing=1.2, **style)
