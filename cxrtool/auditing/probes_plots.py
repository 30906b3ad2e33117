"""Pictures of the probes: what each reaches beside the model, and what each sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrtool.auditing.inputs import Pictures
from cxrtool.auditing.probes_kinds import FIGURES, LUNG, NO_LUNG, OUTLINE, PROBES, Outcome
from cxrtool.auditing.probes_views import VIEWS
from cxrtool.auditing.probes_words import permuted
from cxrtool.evaluation.canvas import BLUE, GREY, ORANGE, VERMILION, picture, shorten
from cxrtool.evaluation.tables import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {NO_LUNG: VERMILION, OUTLINE: ORANGE, LUNG: BLUE}

WIDTH, LINE, TILE = 7.2, 0.36, 1.25
MOST_CLASSES = 4
"""Classes of which an example is shown."""


def draw(outcome: Outcome, pictures: Pictures, folder: Path) -> list[tuple[str, str]]:
    """Draw what there is to draw.

    Returns:
        The names of the files, and what each shows.
    """
    drawn = []
    if any(result.trial is not None for result in outcome.results.values()):
        draw_forest(outcome, folder / "probes.png")
        drawn.append(
            (
                "probes.png",
                "What each probe reaches beside the model, with 95 % intervals; below the grey it is chance.",
            )
        )
    shown = [name for name in outcome.results if name not in FIGURES and outcome.results[name].trial is not None]
    if shown:
        draw_inputs(outcome, pictures, shown, folder / "probe_inputs.png")
        drawn.append(("probe_inputs.png", "What each probe sees of a typical image of each class."))
    return drawn


def draw_forest(outcome: Outcome, path: Path) -> None:
    """Balanced accuracy of every probe with its interval, the model as a line, chance, and the level of alarm."""
    made = {name: result for name, result in outcome.results.items() if result.trial is not None}
    rows = len(made) + 1
    with picture(path, WIDTH, 1.75 + LINE * rows) as figure:
        axes = figure.subplots()
        low = [outcome.chance - 0.02]
        for place, (name, result) in enumerate(made.items()):
            colour = COLOURS[PROBES[name].holds]
            _interval(axes, place, result.balanced_accuracy, colour)
            _beside(axes, place, cell(result.balanced_accuracy))
            reached = result.balanced_accuracy
            low.append(reached["value"] if reached["low"] is None else reached["low"])
            if PROBES[name].level != "alarm" and not math.isnan(result.limit):
                axes.plot([result.limit] * 2, [place - 0.3, place + 0.3], color=GREY, linewidth=1)
        labels = [PROBES[name].title for name in made]
        chance = permuted(outcome)
        if chance is not None:
            labels.append("labels dealt by chance")
            entry = {"value": chance["mean"], "low": chance["low"], "high": chance["high"]}
            _interval(axes, len(made), entry, GREY)
            _beside(axes, len(made), cell(entry))
            low.append(chance["low"])
        axes.axvline(outcome.chance, color=GREY, linestyle=":", linewidth=1.2)
        left = max(0.0, min(low) - 0.03)
        if not math.isnan(outcome.level):
            axes.axvspan(left, outcome.level, color="#eeeeee", zorder=-2, linewidth=0)
        if outcome.model["value"] is not None:
            axes.axvline(outcome.model["value"], color="black", linewidth=1.4, zorder=0)
            if outcome.model["low"] is not None:
                axes.axvspan(outcome.model["low"], outcome.model["high"], color="#d9d9d9", zorder=-1, linewidth=0)
        axes.set_yticks(range(len(labels)), labels)
        axes.set(ylim=(len(labels) - 0.4, -0.6), xlim=(left, 1.005), xlabel="balanced accuracy")
        axes.set_title("What a simple classifier reaches that is shown …")
        _legend(axes, outcome, {PROBES[name].holds for name in made})


def draw_inputs(outcome: Outcome, pictures: Pictures, names: list[str], path: Path) -> None:
    """One image of each class through every probe that sees pictures."""
    examples = {label: _typical(pictures, label) for label in outcome.classes[:MOST_CLASSES]}
    few = pictures.where(np.array(list(examples.values()), np.intp))
    looks = {name: VIEWS[name](few).shown for name in names}
    shown = {name: images for name, images in looks.items() if images is not None}
    with picture(path, 0.5 + TILE * len(shown), 0.35 + TILE * len(examples)) as figure:
        grid = figure.subplots(len(examples), len(shown), squeeze=False)
        for column, (name, images) in enumerate(shown.items()):
            grid[0][column].set_title(PROBES[name].title, fontsize=9, loc="center")
            for row, label in enumerate(examples):
                axes = grid[row][column]
                axes.imshow(images[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[["top", "right"]].set_visible(True)
                if column == 0:
                    axes.set_ylabel(shorten(label, 16), fontsize=9)


def _typical(pictures: Pictures, label: str) -> int:
    """The picture of a class that is nearest to the mean of the class, among those with lungs where there are such."""
    own = np.flatnonzero([name == label for name in pictures.labels])
    if pictures.lungs is not None:
        found = own[pictures.lungs[own].max(axis=(1, 2)) >= 0.5]
        own = found if len(found) else own
    thumbs = pictures.thumbs[own]
    return int(own[((thumbs - thumbs.mean(axis=0)) ** 2).sum(axis=(1, 2)).argmin()])


def _interval(axes: Axes, place: int, measure: Mapping[str, Any], colour: str) -> None:
    if measure["low"] is not None:
        axes.plot([measure["low"], measure["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(measure["value"], place, "o", color=colour, markersize=7, clip_on=False)


def _beside(axes: Axes, place: int, text: str) -> None:
    where: Any = ("axes fraction", "data")
    axes.annotate(text, (1.02, place), xycoords=where, va="center", annotation_clip=False, fontsize=9)


def _legend(axes: Axes, outcome: Outcome, holds: set[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = {NO_LUNG: "no lung", OUTLINE: "outline of the lungs", LUNG: "lungs"}
    handles: list[Any] = [
        Line2D([], [], color=COLOURS[kind], marker="o", linewidth=2, label=name)
        for kind, name in names.items()
        if kind in holds
    ]
    if outcome.model["value"] is not None:
        handles.append(Line2D([], [], color="black", linewidth=1.4, label=f"the model, {outcome.model['value']:.2f}"))
    handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.2, label="guessing"))
    if not math.isnan(outcome.level):
        handles.append(Patch(color="#eeeeee", label="by chance, no alarm"))
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
