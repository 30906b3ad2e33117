"""Contrast-limited adaptive histogram equalisation: as in OpenCV, with the same result for images of 16 bits.

Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994). OpenCV counts the pixels of a
tile in one bin for each level. With 65,536 bins nearly every bin has at most one pixel, and the limit, which is a
number of pixels a bin, no longer limits the contrast as intended: the same radiograph in 8 and in 16 bits would differ
by 24 of 255 levels in the mean. Therefore 16 bits are counted in 256 bins too, and the lookup is interpolated.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.resize import Pixels

CLIP, TILES = 2.0, 8
"""The limit, as a multiple of the uniform histogram, and the tiles a row and a column."""

_BINS, _STEP, _PIECE = 256, 257, 128

Table = NDArray[np.float32]


def clahe(pixels: Pixels, clip: float = CLIP, tiles: int = TILES) -> Pixels:
    """Equalise an image (H, W), uint8 or uint16, tile by tile; the result has the same shape and type.

    Args:
        pixels: The image.
        clip: The largest count of a grey level, as a multiple of the mean over levels; above 0.
        tiles: Tiles a row and a column, at least 1.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(cv2.createCLAHE(clip, (tiles, tiles)).apply(pixels))
    return _clahe_16_bits(pixels, clip, tiles)


def _clahe_16_bits(pixels: Pixels, clip: float, tiles: int) -> Pixels:
    padding = [-side % tiles for side in pixels.shape]
    if any(padding):
        # As in OpenCV: where one side is not divisible, a divisible other side is padded by a full `tiles`.
        padding = [tiles - side % tiles for side in pixels.shape]
    height, width = ((side + more) // tiles for side, more in zip(pixels.shape, padding, strict=True))
    tables = _tables(pixels, padding, (height, width), clip, tiles)
    columns = _segments(pixels.shape[1], width, tiles)
    result = np.empty_like(pixels)
    for top, bottom, above, below, downward in _segments(pixels.shape[0], height, tiles):
        for left, right, before, after, rightward in columns:
            region = slice(top, bottom), slice(left, right)
            # Level 257 k of 16 bits is level k of 8; between two of them a table is linear.
            levels = (pixels[region] // _STEP).astype(np.intp)
            fraction = (pixels[region] - levels * _STEP).astype(np.float32) * np.float32(1 / _STEP)
            upper, lower = (
                _interpolate(
                    _look_up(tables[row, before], levels, fraction),
                    _look_up(tables[row, after], levels, fraction),
                    rightward,
                )
                for row in (above, below)
            )
            values = _interpolate(upper, lower, downward[:, None])
            result[region] = np.rint(values, out=values)
    return result


def _look_up(table: Table, levels: NDArray[np.intp], fraction: Table) -> Table:
    """The values (h, w) of a table (256, 2) at levels (h, w) and a fraction (h, w) of the step to the next."""
    # Value and slope are looked up together, as one complex number.
    pairs = table.view(np.complex64)[:, 0].take(levels, mode="clip")
    values = pairs.imag * fraction
    values += pairs.real
    return values


def _interpolate(first: Table, second: Table, weight: Table) -> Table:
    # In place: `second` becomes the result.
    second -= first
    second *= weight
    second += first
    return second


def _tables(pixels: Pixels, padding: list[int], tile: tuple[int, int], clip: float, tiles: int) -> Table:
    """The new value of each of 256 levels in each tile, up to 65,535, and the slope: (tiles, tiles, 256, 2)."""
    height, width = tile
    bins = ((pixels.astype(np.uint32) + _STEP // 2) // _STEP).astype(np.uint8)
    bins = np.asarray(cv2.copyMakeBorder(bins, 0, padding[0], 0, padding[1], cv2.BORDER_REFLECT_101))
    counts = np.empty((tiles, tiles, _BINS), np.int64)
    for y, x in np.ndindex(tiles, tiles):
        part = bins[y * height : (y + 1) * height, x * width : (x + 1) * width]
        counts[y, x] = cv2.calcHist([part], [0], None, [_BINS], [0, _BINS]).ravel()
    limit = max(int(clip * height * width / _BINS), 1)
    excess = np.maximum(counts - limit, 0).sum(2)
    counts = np.minimum(counts, limit) + (excess // _BINS)[..., None]
    for index in np.ndindex(tiles, tiles):
        if rest := int(excess[index]) % _BINS:
            counts[index][:: max(_BINS // rest, 1)][:rest] += 1
    values = np.minimum(np.cumsum(counts, 2) * (65535 / (height * width)), 65535).astype(np.float32)
    slopes = np.zeros_like(values)
    slopes[..., :-1] = np.diff(values, axis=2)
    return np.stack((values, slopes), 3)


def _segments(side: int, tile: int, tiles: int) -> list[tuple[int, int, int, int, Table]]:
    """An axis between the centres of tiles: start, end, the tiles on both sides, and the weight of the second."""
    position = np.arange(side, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    first = np.floor(position).astype(int)
    weight = (position - first).astype(np.float32)
    found = []
    for number in np.unique(first):
        start, end = (int(edge) for edge in np.searchsorted(first, [number, number + 1]))
        neighbours = max(int(number), 0), min(int(number) + 1, tiles - 1)
        # In pieces that fit the processor's cache with all intermediate results.
        for edge in range(start, end, _PIECE):
            last = min(edge + _PIECE, end)
            found.append((edge, last, *neighbours, weight[edge:last]))
    return found
