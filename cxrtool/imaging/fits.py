"""How a picture that is not square becomes one, and what a network is shown of it. Needs the standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

NATIVE = "native"
"""The size that leaves a picture as it is."""


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes a square: a box is cut out, resampled, and laid on a black canvas.

    Attributes:
        box: The part of the picture that is used: top, left, height, width.
        inner: What the box is resampled to: height, width.
        place: Where that lies on the canvas: top, left.
        size: Side of the canvas.
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    place: tuple[int, int]
    size: int


def _squash(height: int, width: int, size: int) -> Geometry:
    return Geometry((0, 0, height, width), (size, size), (0, 0), size)


def _pad(height: int, width: int, size: int) -> Geometry:
    longer = max(height, width)
    inner = max(1, round(height * size / longer)), max(1, round(width * size / longer))
    place = (size - inner[0]) // 2, (size - inner[1]) // 2
    return Geometry((0, 0, height, width), inner, place, size)


def _crop(height: int, width: int, size: int) -> Geometry:
    side = min(height, width)
    return Geometry(((height - side) // 2, (width - side) // 2, side, side), (size, size), (0, 0), size)


@dataclass(frozen=True)
class Fit:
    """A way to a square: its words for a methods paragraph, and the geometry of (height, width, size)."""

    words: str
    geometry: Callable[[int, int, int], Geometry]


FITS: dict[str, Fit] = {
    "squash": Fit("without regard to their proportions", _squash),
    "pad": Fit("in proportion and padded", _pad),
    "crop": Fit("in proportion and cropped at the centre", _crop),
}
"""How a picture that is not square becomes one.

`squash` changes the proportions, as the published systems do, and is the default: it neither loses a part of the lungs,
as `crop` can, nor draws a border that tells the source of the picture by its proportions, as `pad` does.
"""


def fit_geometry(height: int, width: int, size: int, fit: str) -> Geometry:
    """Where the pixels of a square of side `size` come from.

    >>> fit_geometry(200, 100, 50, "pad")
    Geometry(box=(0, 0, 200, 100), inner=(50, 25), place=(0, 12), size=50)
    >>> fit_geometry(200, 100, 50, "crop").box
    (50, 0, 100, 100)
    """
    return FITS[fit].geometry(height, width, size)


@dataclass(frozen=True)
class Form:
    """How a picture is brought before a network.

    Attributes:
        size: Side of the square input in pixels.
        fit: `squash` or `pad`.
        crop_borders: Cut black borders away first.
        equalise: Equalise the histogram, at the size of the input.
        invert: Show the negative, lungs bright.
    """

    size: int
    fit: str = "squash"
    crop_borders: bool = False
    equalise: bool = False
    invert: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)
