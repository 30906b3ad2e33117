"""The inverse of cropping and resampling: from a network's input back to the radiograph.

All steps that move pixels are crops, changes of size and frames, so that their inverse is one scale and one offset for
each axis. Coordinates are those of the pixels' edges: an image of n pixels goes from 0 to n.
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
    """The geometry of one step.

    Attributes:
        box: The part of the input image that is used: top, left, height, width.
        inner: The size of the resampled box: height, width.
        place: Its position in the output image: top, left.
    """

    box: tuple[int, int, int, int]
    inner: tuple[int, int]
    place: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, geometry: Geometry) -> Move:
        """The geometry of `apply_geometry`."""
        return cls(geometry.box, geometry.inner, geometry.place)

    @classmethod
    def cut(cls, box: tuple[int, int, int, int]) -> Move:
        """A crop without a change of size: top, left, height, width."""
        return cls(box, box[2:])


@dataclass(frozen=True)
class ScaleAndOffset:
    """From coordinates of an image after all moves to those before the first: offset + scale * coordinate.

    `top` and `left` are the offsets, `down` and `across` the scales.
    """

    top: float
    left: float
    down: float
    across: float


def inverse_of(moves: Iterable[Move]) -> ScaleAndOffset:
    """The inverse of moves, which are given in the order in which they were made.

    >>> inverse_of([Move.cut((10, 20, 40, 40)), Move((0, 0, 40, 40), (80, 80))])
    ScaleAndOffset(top=10.0, left=20.0, down=0.5, across=0.5)
    """
    top, left, down, across = 0.0, 0.0, 1.0, 1.0
    for move in moves:
        (box_top, box_left, height, width), (rows, columns) = move.box, move.inner
        y, x = height / rows, width / columns
        top += down * (box_top - move.place[0] * y)
        left += across * (box_left - move.place[1] * x)
        down, across = down * y, across * x
    return ScaleAndOffset(top, left, down, across)


def lay_back(
    values: NDArray[np.float32], moves: Iterable[Move], shape: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Map values that were computed after moves back to the image before them.

    Args:
        values: (h, w), for instance a map at the size of a network's input.
        moves: In the order in which they were made.
        shape: Of the image before the moves: height, width.
        size: Of the result, which may be smaller: height, width.

    Returns:
        `size`, bilinear; 0 where the moves cropped the image.
    """
    inverse = inverse_of(moves)
    axes = ((inverse.top, inverse.down), (inverse.left, inverse.across))
    indices, inside = [], []
    for wanted, whole, length, (offset, scale) in zip(size, shape, values.shape, axes, strict=True):
        position = ((np.arange(wanted) + 0.5) * whole / wanted - offset) / scale
        # The values in a frame do not belong to the image.
        first, last = max(0.0, -offset / scale), min(float(length), (whole - offset) / scale)
        inside.append((position >= 0) & (position < length))
        # The centre of pixel 0 is at 0.5; beyond the outermost centres the outermost value is repeated.
        indices.append(np.clip(position, first + 0.5, max(first, last - 1) + 0.5).astype(np.float32) - np.float32(0.5))
    columns, rows = np.meshgrid(indices[1], indices[0])
    mapped = cv2.remap(np.ascontiguousarray(values, np.float32), columns, rows, cv2.INTER_LINEAR)
    return np.asarray(mapped * np.outer(*inside), np.float32)
