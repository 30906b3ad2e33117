"""Size, style and colours of all figures; the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
"""Colours of Okabe & Ito, which can be distinguished with any kind of colour vision."""

GREY = "#767676"

DPI = 150

STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
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
        figure.savefig(path, metadata={"Software": None})


def shorten(text: str, length: int = 22) -> str:
    """Shorten a long name in its middle.

    >>> shorten("a" * 15 + "b" * 15, 11)
    'aaaaa…bbbbb'
    """
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
