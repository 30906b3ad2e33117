"""The flow of images through a study as a drawing: what there was, what was left out and why, and the subsets.

Boxes from top to bottom, what was left out to the right of them, and the subsets in a row at the bottom, as reviewers
know it from STARD (Bossuyt et al. 2015) and CONSORT.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.evaluation.plots.canvas import GREY, picture
from cxrtool.evaluation.tables import Sheet, count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, SIDE, GAP = 3.5, 3.7, 0.35
"""Widths in inches of a box, and of one of what was left out; and the way between boxes."""

LINE, PAD = 0.19, 0.09
LETTERS = 13.2
"""Letters of the drawing's size in an inch."""

INK, FILL = "#1b1f24", "#eef4fa"


@dataclass(frozen=True)
class Stage:
    """What there was of images after a step.

    Attributes:
        title: What they are, as `read by prepare`.
        images: How many; radiographs, however many versions of each.
        patients: How many; None where no patient is named.
        left_out: Numbers and reasons of what was left out on the way here.
    """

    title: str
    images: int
    patients: int | None = None
    left_out: Sequence[tuple[int, str]] = ()

    def size(self) -> str:
        """Images and patients in words."""
        of = "" if self.patients is None else f" of {count_of(self.patients, 'patient')}"
        return f"{count_of(self.images, 'image')}{of}"


@dataclass(frozen=True)
class Flow:
    """A study's flow of images.

    Attributes:
        stages: From the source to what was evaluated.
        parts: Names and sizes of the subsets into which the last stage falls.
        notes: What is not known, or needs a word.
    """

    stages: Sequence[Stage]
    parts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    def left_out(self) -> int:
        """How many were left out in all."""
        return sum(count for stage in self.stages for count, _ in stage.left_out)


def tabulate(flow: Flow) -> Sheet:
    """The flow as a table, for those who do not see the drawing."""
    rows = []
    for stage in flow.stages:
        out = sum(count for count, _ in stage.left_out)
        reasons = "; ".join(f"{count}: {reason}" for count, reason in stage.left_out)
        patients = "" if stage.patients is None else str(stage.patients)
        rows.append([stage.title, str(stage.images), patients, str(out), reasons])
    return Sheet("Images after every step", ["step", "images", "patients", "left out", "reasons"], rows,
                 [*(f"{name}: {', '.join(text.splitlines())}." for name, text in flow.parts), *flow.notes])  # fmt: skip


def draw_flow(flow: Flow, path: Path) -> None:
    """Draw the flow; numbers of patients are left out where none is named."""
    boxes = [_wrap([stage.title, stage.size()], WIDTH) for stage in flow.stages]
    outs = [
        _wrap([f"left out: {sum(count for count, _ in stage.left_out)}",
               *(f"{count}: {reason}" for count, reason in stage.left_out)], SIDE) if stage.left_out else []
        for stage in flow.stages
    ]  # fmt: skip
    wide = WIDTH + (GAP + SIDE if any(outs) else 0)
    columns = max(1, len(flow.parts))
    share = (max(wide, 2.0 * columns) - 0.2 * (columns - 1)) / columns
    parts = [_wrap([name, *text.split("\n")], share) for name, text in flow.parts]
    width = max(wide, share * columns + 0.2 * (columns - 1)) + 0.2
    height = sum(_height(box) for box in boxes) + sum(max(GAP, _height(out) + 0.2 if out else 0) for out in outs[1:])
    first = _height(outs[0]) if outs and outs[0] else 0
    height = max(height, first) + ((GAP + max(map(_height, parts))) if parts else 0) + 0.2
    with picture(path, width, height) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.1, width - 0.1), ylim=(height - 0.1, -0.1))
        axes.set_axis_off()
        y, middle = 0.0, WIDTH / 2
        for place, (box, out) in enumerate(zip(boxes, outs, strict=True)):
            if place:
                way = max(GAP, _height(out) + 0.2 if out else 0)
                _arrow(axes, (middle, y), (middle, y + way))
                if out:
                    _arrow(axes, (middle, y + way / 2), (WIDTH + GAP, y + way / 2))
                    _box(axes, WIDTH + GAP, y + way / 2 - _height(out) / 2, SIDE, out, left=True)
                y += way
            elif out:
                _box(axes, WIDTH + GAP, y, SIDE, out, left=True)
            _box(axes, 0.0, y, WIDTH, box)
            y += _height(box)
        if parts:
            tallest = max(map(_height, parts))
            centres = [k * (share + 0.2) + share / 2 for k in range(columns)]
            if columns > 1:
                axes.plot([middle, middle], [y, y + GAP / 2], color=GREY, linewidth=1)
                ends = [*centres, middle]
                axes.plot([min(ends), max(ends)], [y + GAP / 2] * 2, color=GREY, linewidth=1)
            for centre, text in zip(centres, parts, strict=True):
                start = (centre, y + GAP / 2) if columns > 1 else (middle, y)
                _arrow(axes, start, (centre if columns > 1 else middle, y + GAP))
                _box(axes, centre - share / 2, y + GAP, share, text, tall=tallest)


def _wrap(lines: Sequence[str], width: float) -> list[str]:
    letters = max(12, int(width * LETTERS))
    return [part for line in lines for part in (textwrap.wrap(line, letters) or [""])]


def _height(lines: Sequence[str]) -> float:
    return LINE * len(lines) + 2 * PAD if lines else 0.0


def _box(
    axes: Axes, x: float, y: float, width: float, lines: Sequence[str], *, left: bool = False, tall: float = 0.0
) -> None:
    from matplotlib.patches import Rectangle

    height = max(_height(lines), tall)
    fill = "white" if left else FILL
    axes.add_patch(Rectangle((x, y), width, height, facecolor=fill, edgecolor=GREY, linewidth=1, zorder=2))
    for number, text in enumerate(lines):
        place = (x + PAD, y + PAD + LINE * (number + 0.5)) if left else (x + width / 2, y + PAD + LINE * (number + 0.5))
        weight = "bold" if number == 0 and not left else "normal"
        axes.text(*place, text, ha="left" if left else "center", va="center", fontsize=9, color=INK, weight=weight)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style, zorder=1)
