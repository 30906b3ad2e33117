"""The history of a training run as a table and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrtool.data.files import atomic_path
from cxrtool.data.tables.manifest import write_table
from cxrtool.imaging.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, SUBSETS, VERMILION, legend_below, picture
from cxrtool.training.engine import History
from cxrtool.training.job import COLUMNS, Row

BOUNDED = ("accuracy", "dice")
"""Scores from 0 to 1."""

ONLY_LOOKING = "Test images: for looking only, nothing is chosen by them."

OTHERS = ((GREEN, "-"), (PURPLE, "--"), (ORANGE, "-."), (SKY, ":"), (BLUE, (0, (5, 1))), (VERMILION, (0, (1, 1))))
"""Colours and line styles of the terms of a loss, in their order."""


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write one row per epoch; what was not measured is empty."""
    names = list(rows[0]) if rows else list(COLUMNS)
    text = [{name: "" if (value := row[name]) is None else f"{value:.9g}" for name in names} for row in rows]
    write_table(path, names, text)


def draw_history(path: Path, history: History, title: str) -> None:
    """Draw loss and score over the epochs, and mark the epoch that was kept."""
    names = list(history.rows[0]) if history.rows else []
    scores = (name.removeprefix("train_") for name in names if name.startswith("train_") and name != "train_loss")
    score = next(scores, "accuracy")
    panels = [_both("loss", "loss"), _both(score, score)]
    if any(row.get(f"test_{score}") is not None for row in history.rows):
        panels = [replace(panel, lines={**panel.lines, "test": _line("test", panel.what)}) for panel in panels]
        title = f"{title}\n{ONLY_LOOKING}"
    draw_panels(path, history, title, panels)


class Line(NamedTuple):
    """A line of a panel: the column of the history, its colour, and the style of matplotlib."""

    column: str
    colour: str
    style: Any


@dataclass(frozen=True)
class Panel:
    """One pair of axes of a history.

    Attributes:
        what: Label of the y axis.
        lines: By label.
        logarithmic: Use a logarithmic axis if all values are above 0.
    """

    what: str
    lines: Mapping[str, Line]
    logarithmic: bool = False


def _line(subset: str, figure: str) -> Line:
    return Line(f"{subset}_{figure}", *SUBSETS[subset])


def _both(figure: str, what: str) -> Panel:
    return Panel(what, {subset: _line(subset, figure) for subset in ("train", "validation")})


def loss_and(score: str, loss: str, terms: Mapping[str, Mapping[str, str]]) -> list[Panel]:
    """The panels of a history whose loss has named terms: loss, score, and one for each term.

    Args:
        score: Name of the score.
        loss: Label of the loss.
        terms: By the name of the term, the label and the column of each line.
    """
    names = list(dict.fromkeys(name for lines in terms.values() for name in lines))
    styles = {name: OTHERS[index % len(OTHERS)] for index, name in enumerate(names)}
    drawn = [
        Panel(what, {name: Line(column, *styles[name]) for name, column in lines.items()}, logarithmic=True)
        for what, lines in terms.items()
    ]
    return [_both("loss", loss), _both(score, score), *drawn]


def draw_panels(path: Path, history: History, title: str, panels: Sequence[Panel]) -> None:
    """Draw panels over the epochs, at most four in a row, and mark the epoch that was kept.

    The first panel has a legend above it, and so has every panel whose lines differ from those of the panel before; one
    that all panels share is below them.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    width = 4.5 * min(columns, 2) + 3.4 * max(0, columns - 2)
    shared = all(list(panel.lines) == list(panels[0].lines) for panel in panels)
    epochs = [row["epoch"] for row in history.rows]
    with atomic_path(path) as temporary, picture(temporary, width, 3.8 * rows + 0.3) as figure:
        cells = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axes in cells[len(panels) :]:
            axes.set_axis_off()
        for index, (axes, panel) in enumerate(zip(cells, panels, strict=False)):
            for name, (column, colour, style) in panel.lines.items():
                values = [row[column] for row in history.rows]
                if any(value is not None for value in values):
                    marker = "o" if len(epochs) == 1 else ""
                    axes.plot(epochs, values, color=colour, ls=style, label=name, marker=marker, lw=1.5)
            axes.axvline(history.kept, color=GREY, lw=1, ls=":", label=f"epoch kept: {history.kept}")
            axes.set(xlabel="epoch", ylabel=panel.what, xlim=(0.5, max(2, len(epochs)) + 0.5))
            axes.xaxis.get_major_locator().set_params(integer=True)
            if panel.what in BOUNDED:
                axes.set_ylim(0, 1.02)
            elif panel.logarithmic and _all_above_zero(history, panel):
                axes.set(yscale="log", ylabel=f"{panel.what} (logarithmic axis)")
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            else:
                axes.set_ylim(bottom=0)
            axes.grid(alpha=0.25)
            if not shared and (not index or list(panel.lines) != list(panels[index - 1].lines)):
                axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        if shared:
            legend_below(figure, cells[0].get_legend_handles_labels()[0])
        figure.suptitle(title, x=0.01, ha="left")


def _all_above_zero(history: History, panel: Panel) -> bool:
    values = [row[column] for row in history.rows for column, *_ in panel.lines.values()]
    return all(value is not None and value > 0 for value in values)
