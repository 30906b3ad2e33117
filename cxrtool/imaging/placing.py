"""Where a picture was before it was cut and resampled: the way back from what a network sees to the radiograph.

Everything that moves pixels here is a cut, a change of size and a frame, one after the other, so that the way back is
one scale and one offset an axis. Coordinates are those of the pixels' edges: a picture of n pixels goes from 0 to n.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.fits import Geometry


@dataclass(frozen=True)
class Move:
    """One step's way with a picture.

    Attributes:
        box: The part of the picture before that is used: top, left, height, width.
        inner: What the box becomes: height, width.
        place: Where that lies in the picture after: top, left.
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, geometry: Geometry) -> Move:
        """What `apply_geometry` does."""
        return cls(geometry.box, geometry.inner, geometry.place)

    @classmethod
    def cut(cls, box: tuple[int, int, int, int]) -> Move:
        """A part of a picture as it is: top, left, height, width."""
        return cls(box, box[2:])


@dataclass(frozen=True)
class Way:
    """From coordinates of a picture after all moves to those before the first: offset + scale * coordinate.

    Attributes:
        top: Offset down.
        left: Offset to the right.
        down: Scale down.
        across: Scale to the right.
    """

    top: float
    left: float
    down: float
    across: float


def way_back(moves: Iterable[Move]) -> Way:
    """The way back through moves, given in the order in which they were made.

    >>> way_back([Move.cut((10, 20, 40, 40)), Move((0, 0, 40, 40), (80, 80))])
    Way(top=10.0, left=20.0, down=0.5, across=0.5)
    """
    top, left, down, across = 0.0, 0.0, 1.0, 1.0
    for move in moves:
        (box_top, box_left, height, width), (rows, columns) = move.box, move.inner
        y, x = height / rows, width / columns
        top += down * (box_top - move.place[0] * y)
        left += across * (box_left - move.place[1] * x)
        down, across = down * y, across * x
    return Way(top, left, down, across)


def lay_back(
    values: NDArray[np.float32], moves: Iterable[Move], shape: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Lay what was computed of a picture after moves on the picture before them.

    Args:
        values: (h, w), for instance a map at the size of a network's input.
        moves: In the order in which they were made.
        shape: Of the picture before them: height, width.
        size: Of the answer, which may be smaller: height, width.

    Returns:
        `size`, bilinear; 0 where the moves cut the picture off.
    """
    way = way_back(moves)
    ends = ((way.top, way.down), (way.left, way.across))
    indices, inside = [], []
    for wanted, whole, length, (offset, scale) in zip(size, shape, values.shape, ends, strict=True):
        place = ((np.arange(wanted) + 0.5) * whole / wanted - offset) / scale
        # A frame lies outside of the picture, and its values are none of the picture's; nor is there anything beyond.
        first, last = max(0.0, -offset / scale), min(float(length), (whole - offset) / scale)
        inside.append((place >= 0) & (place < length))
        # The centre of pixel 0 is at 0.5; beyond the outermost centres the outermost value goes on.
        indices.append(np.clip(place, first + 0.5, max(first, last - 1) + 0.5).astype(np.float32) - np.float32(0.5))
    columns, rows = np.meshgrid(indices[1], indices[0])
    laid = cv2.remap(np.ascontiguousarray(values, np.float32), columns, rows, cv2.INTER_LINEAR)
    return np.asarray(laid * np.outer(*inside), np.float32)
