"""The flow of images through a study as a diagram: images after each step, exclusions with reasons, and subsets.

Steps are boxes from top to bottom, exclusions are to the right of them, and subsets in a row at the bottom, as in the
diagrams of STARD (Bossuyt et al. 2015) and CONSORT.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.evaluation.tables import Sheet, count_of
from cxrtool.imaging.canvas import GREY, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, SIDE, GAP = 3.5, 3.7, 0.35
"""In inches: width of a step, width of an exclusion, distance between boxes."""

LINE, PAD = 0.19, 0.09
LETTERS = 13.2
"""Letters per inch at the font size of the diagram."""

INK, FILL = "#1b1f24", "#eef4fa"


@dataclass(frozen=True)
class Stage:
    """The images after a step.

    Attributes:
        title: A description, such as `read by prepare`.
        images: Number of radiographs; versions of one are counted once.
        patients: Number of patients; None where no image has a patient_id.
        exclusions: Numbers and reasons of the images that the step excluded.
    """

    title: str
    images: int
    patients: int | None = None
    exclusions: Sequence[tuple[int, str]] = ()

    def excluded(self) -> int:
        """Number of excluded images."""
        return sum(count for count, _ in self.exclusions)

    def size(self) -> str:
        """Numbers of images and patients as text."""
        of = "" if self.patients is None else f" of {count_of(self.patients, 'patient')}"
        return f"{count_of(self.images, 'image')}{of}"


@dataclass(frozen=True)
class Flow:
    """The flow of images of a study.

    Attributes:
        stages: From the source to the evaluated images.
        parts: Names and sizes of the subsets of the last stage.
        notes: Remarks below the table.
    """

    stages: Sequence[Stage]
    parts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    def excluded(self) -> int:
        """Total number of excluded images."""
        return sum(stage.excluded() for stage in self.stages)


def tabulate(flow: Flow) -> Sheet:
    """The flow as a table."""
    rows = []
    for stage in flow.stages:
        reasons = "; ".join(f"{count}: {reason}" for count, reason in stage.exclusions)
        patients = "" if stage.patients is None else str(stage.patients)
        rows.append([stage.title, str(stage.images), patients, str(stage.excluded()), reasons])
    return Sheet(
        "Images after every step",
        ["step", "images", "patients", "excluded", "reasons"],
        rows,
        [*(f"{name}: {', '.join(text.splitlines())}." for name, text in flow.parts), *flow.notes],
    )


def draw_flow(flow: Flow, path: Path) -> None:
    """Draw the flow, without numbers of patients where no image has a patient_id."""
    boxes = [_wrap([stage.title, stage.size()], WIDTH) for stage in flow.stages]
    outs = [
        _wrap(
            [
                f"excluded: {stage.excluded()}",
                *(f"{count}: {reason}" for count, reason in stage.exclusions),
            ],
            SIDE,
        )
        if stage.exclusions
        else []
        for stage in flow.stages
    ]
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
        for number, (box, out) in enumerate(zip(boxes, outs, strict=True)):
            if number:
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
        weight = "bold" if number == 0 and not left else "normal"
        x_text, y_text = x + PAD if left else x + width / 2, y + PAD + LINE * (number + 0.5)
        align = "left" if left else "center"
        axes.text(x_text, y_text, text, ha=align, va="center", fontsize=9, color=INK, weight=weight)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style, zorder=1)
