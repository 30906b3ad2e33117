"""Size, style and colours of all figures; the same data gives the same bytes.

A figure must be readable in grey print and with any kind of colour vision: what has its own colour also has its own
line style or marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
"""Colours of Okabe & Ito, which can be distinguished with any kind of colour vision."""

GREY = "#767676"

SERIES = ((SKY, "-"), (VERMILION, "--"), (GREEN, "-."), (ORANGE, (0, (5, 1))), (PURPLE, (0, (3, 1, 1, 1, 1, 1))))
"""Colour and line style of a few things of equal rank, such as folds, in their order."""

SUBSETS = {"train": (BLUE, "-"), "validation": (VERMILION, "--"), "test": (GREEN, "-.")}
"""Colour and line style of the subsets of a split in training curves."""

BAND: dict[str, Any] = {"color": SKY, "alpha": 0.35, "linewidth": 0}
"""Style of an interval around a blue curve."""

DPI = 150

STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "figure.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Names of classes and groups are text, even with dollar signs.
    "text.parse_math": False,
}


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure and save it as PNG on leaving.

    It is drawn without a display and without the matplotlibrc of the user, and has neither date nor version, so that
    the same data gives the same bytes. Width and height are in inches of `DPI` pixels.
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png", metadata={"Software": None})


def draw_interval(
    axes: Axes, y: int, measure: Mapping[str, Any], colour: str, marker: str = "o", *, hollow: bool = False
) -> None:
    """Draw a value with its interval as a line of a forest plot; `hollow` marks another method of the interval."""
    if measure["low"] is not None:
        axes.plot([measure["low"], measure["high"]], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    face = "white" if hollow else colour
    axes.plot(measure["value"], y, marker, color=colour, markersize=7, markerfacecolor=face, clip_on=False)


def write_beside(axes: Axes, y: int, text: str, size: int = 9) -> None:
    """Write a text to the right of the line `y` of a forest plot."""
    where: Any = ("axes fraction", "data")
    axes.annotate(text, (1.02, y), xycoords=where, va="center", annotation_clip=False, fontsize=size)


def legend_below(figure: Figure, entries: list[Any], most: int = 3) -> None:
    """Draw a legend below all panels, where it covers no data, in as many columns as fit, at most `most`."""
    for columns in range(min(most, len(entries)), 0, -1):
        legend = figure.legend(handles=entries, loc="outside lower center", columnspacing=1.2, ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def shorten(text: str, length: int = 22) -> str:
    """Shorten a long name in its middle.

    >>> shorten("a" * 15 + "b" * 15, 11)
    'aaaaa…bbbbb'
    """
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}" if half else text[:length]


def wrapped(text: str, width: int, lines: int = 2) -> str:
    r"""A name on at most so many lines of `width` characters, shortened in its middle where it is longer still.

    >>> wrapped("severe acute respiratory syndrome", 22)
    'severe acute\nrespiratory syndrome'
    >>> wrapped("run_of_a_long_name", 12)
    'run_of_a_\nlong_name'
    """
    for length in range(width * lines, 0, -1):
        parts = _wrap(shorten(text, length), width)
        if len(parts) <= lines:
            return "\n".join(parts)
    return ""


def _wrap(text: str, width: int) -> list[str]:
    """Lines that end after a blank, an underscore, a hyphen or a slash; a longer word is cut."""
    lines = [""]
    for word in re.findall(r"[^\s_/-]*[\s_/-]+|[^\s_/-]+", text):
        if lines[-1] and len((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.strip() for line in lines]
