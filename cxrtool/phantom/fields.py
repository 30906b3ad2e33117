"""Elements of drawing: curves over one coordinate, smooth noise, soft edges.

Every field is float32 of shape (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
Generator = np.random.Generator

_STEP = 0.02
"""Centimetres between two entries of a profile's table."""


class Profile:
    """A smooth curve through points, looked up in a fine table, which is ten times faster than interpolation.

    Args:
        points: Pairs of a coordinate in cm, increasing, and its value; beyond the ends the value is constant.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        from scipy.interpolate import PchipInterpolator

        coordinates, values = zip(*points, strict=True)
        self._first = coordinates[0]
        grid = np.arange(coordinates[0], coordinates[-1] + _STEP, _STEP)
        self._table = PchipInterpolator(coordinates, values, extrapolate=True)(grid).astype(np.float32)

    def __call__(self, coordinate: Field) -> Field:
        """Values at coordinates in cm, an array of any shape."""
        index = ((coordinate - self._first) * (1 / _STEP) + 0.5).astype(np.int32)
        found: Field = self._table[np.clip(index, 0, len(self._table) - 1)]
        return found


def cloud(generator: Generator, shape: tuple[int, int], cells: float) -> Field:
    """Smooth noise of zero mean and nearly unit spread, with `cells` cells along the longer side of `shape`."""
    return roughness(generator, shape, cells, 1)


def roughness(generator: Generator, shape: tuple[int, int], cells: float, octaves: int, fall: float = 0.6) -> Field:
    """Noise of several scales, each twice as fine as the one before and `fall` times as strong."""
    height, width = shape
    cell = max(shape) / cells
    # Larger than the image by one or two cells and cropped at random, so that no cell has a fixed position.
    across, down = max(2, round(width / cell)) + 2, max(2, round(height / cell)) + 2
    large = (round(across * cell), round(down * cell))
    left, top = (int(generator.random() * (slack + 1)) for slack in (large[0] - width, large[1] - height))
    values: Field = generator.standard_normal((down, across), dtype=np.float32)
    for octave in range(1, octaves):
        across, down = 2 * across, 2 * down
        # Coarse scales stay small until the end: enlarging each scale separately takes five times as long.
        values = cv2.resize(values, (across, down), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
        values += fall**octave * generator.standard_normal((down, across), dtype=np.float32)
    grown: Field = cv2.resize(values, large, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    return grown[top : top + height, left : left + width]


def step(distance: Field, width: float) -> Field:
    """0 to 1 as `distance` goes from -width to width, smoothly; 0.5 at zero."""
    t: Field = distance * (0.5 / width)
    t += 0.5
    np.clip(t, 0, 1, out=t)
    # In place: at this size memory takes the time, not arithmetic.
    rest = t * -2
    rest += 3
    t *= t
    t *= rest
    return t


def ball(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Field:
    """Half the length of a ray through an ellipsoid of unit depth, 0 outside it.

    Args:
        x: Coordinates to the right, cm.
        y: Coordinates downwards, cm.
        centre: In the same frame.
        radii: Along the axes before the tilt, cm.
        tilt: Radians, clockwise on the image.
    """
    u, v = x - np.float32(centre[0]), y - np.float32(centre[1])
    if tilt:
        c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        u, v = c * u + s * v, c * v - s * u
    u *= np.float32(1 / radii[0])
    v *= np.float32(1 / radii[1])
    inside = 1 - u * u - v * v
    chord: Field = np.sqrt(np.maximum(inside, 0, out=inside))
    return chord


def blur(field: Field, sigma: float) -> Field:
    """A Gaussian blur; a wide one is computed on a smaller image, which is faster with the same result."""
    if sigma <= 0:
        return field
    factor = int(sigma // 3)
    if factor < 2:
        return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    height, width = field.shape
    size = (max(4, width // factor), max(4, height // factor))
    small = cv2.resize(field, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * size[0] / width, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]
