"""How an image becomes square, the margin of a crop, a network's input form. Needs the standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

NATIVE = "native"
"""The size that leaves an image as it is."""

IMAGE, BOX = "image", "box"
MARGINS_OF = (IMAGE, BOX)
"""The reference of a margin: the image's sides, or those of the rectangle around the lungs."""

MARGIN = 0.025
"""The margin around a crop to the lungs, on each side, as in Tabik et al. 2020."""


@dataclass(frozen=True)
class Geometry:
    """How an image becomes square: a box is cropped, resampled, and placed on a black canvas.

    Attributes:
        box: The part of the image that is used: top, left, height, width.
        inner: The size of the resampled box: height, width.
        place: Its position on the canvas: top, left.
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
    """A way to make an image square: its description in a methods paragraph, and its geometry."""

    words: str
    geometry: Callable[[int, int, int], Geometry]


FITS: dict[str, Fit] = {
    "squash": Fit("without regard to their proportions", _squash),
    "pad": Fit("in proportion and padded", _pad),
    "crop": Fit("in proportion and cropped at the centre", _crop),
}
"""The ways to make an image square.

`squash` changes the proportions, as the published systems do, and is the default: it neither loses a part of the lungs,
as `crop` can, nor adds a border that can reveal the source of the image by its proportions, as `pad` does.
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
    """The form of a network's input.

    Attributes:
        size: Side of the square input in pixels.
        fit: `squash` or `pad`.
        crop_borders: Remove black borders first.
        equalise: Equalise the histogram, at the size of the input.
        invert: Use the negative, with bright lungs.
        crop_lungs: Crop to the lungs first, whose mask has to be known.
    """

    size: int
    fit: str = "squash"
    crop_borders: bool = False
    equalise: bool = False
    invert: bool = False
    crop_lungs: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values; a crop to the lungs only where there is one, as in parts without this entry."""
        return {name: value for name, value in asdict(self).items() if name != "crop_lungs" or value}
