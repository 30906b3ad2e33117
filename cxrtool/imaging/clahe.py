"""Contrast-limited adaptive histogram equalisation: as in OpenCV, with the same result for images of 16 bits.

Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994). OpenCV counts the pixels of a
tile in one bin for each level. With 65,536 bins nearly every bin has at most one pixel, and the limit, which is a
number of pixels a bin, no longer limits the contrast as intended: the same radiograph in 8 and in 16 bits would differ
by 24 of 255 levels in the mean. Therefore 16 bits are counted in 256 bins too, and the lookup is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.resize import Pixels

CLIP, TILES = 2.0, 8
"""The limit, as a multiple of the uniform histogram, and the tiles a row and a column."""

_BINS, _STEP, _PIECE, _BLOCK = 256, 257, 128, 1 << 14
"""The last two are sides and pixels of what fits the processor's cache with all intermediate results."""

Table = NDArray[np.float32]
Segment = tuple[int, int, int, int, Table]
"""A part of an axis: start, end, the tiles on both sides, and the weight of the second one for each pixel."""


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
    # Level 257 k of 16 bits is level k of 8; between two of them a table is linear.
    levels = pixels // _STEP
    rest = pixels - levels * _STEP
    small = levels.astype(np.uint8)
    bins = small + (rest > _STEP // 2)
    tables = _tables(bins, padding, (height, width), clip, tiles)
    fraction = rest.astype(np.float32)
    fraction *= np.float32(1 / _STEP)
    rows = _segments(pixels.shape[0], height, tiles)
    downward = np.concatenate([row[4] for row in rows])[:, None]
    result = np.empty_like(pixels)
    for left, right, before, after, rightward in _segments(pixels.shape[1], width, tiles):
        # Contiguous copies, because OpenCV looks up whole blocks faster than their rows.
        levels, part = small[:, left:right].copy(), fraction[:, left:right].copy()
        some = max(1, _BLOCK // (levels.shape[1] * max(height, 1)))
        for group in (rows[start : start + some] for start in range(0, len(rows), some)):
            block = slice(group[0][0], group[-1][1])
            upper, lower = (
                _interpolate(
                    _look_up(tables[:, before], group, side, levels, part[block]),
                    _look_up(tables[:, after], group, side, levels, part[block]),
                    rightward,
                )
                for side in (2, 3)
            )
            values = _interpolate(upper, lower, downward[block])
            result[block, left:right] = np.rint(values, out=values)
    return result


def _look_up(tables: Table, rows: Sequence[Segment], side: int, levels: Pixels, fraction: Table) -> Table:
    """The values of some rows by the tables (tiles, 2, 256) of a column, each row by that of the tile on one side."""
    values, slopes = np.empty_like(fraction), np.empty_like(fraction)
    top = rows[0][0]
    for row in rows:
        place = slice(row[0] - top, row[1] - top)
        value, slope = tables[row[side]]
        cv2.LUT(levels[row[0] : row[1]], value, values[place])
        cv2.LUT(levels[row[0] : row[1]], slope, slopes[place])
    slopes *= fraction
    slopes += values
    return slopes


def _interpolate(first: Table, second: Table, weight: Table) -> Table:
    # In place: `second` becomes the result.
    second -= first
    second *= weight
    second += first
    return second


def _tables(bins: Pixels, padding: list[int], tile: tuple[int, int], clip: float, tiles: int) -> Table:
    """The new value of each of 256 levels in each tile, up to 65,535, and the slope: (tiles, tiles, 2, 256).

    `bins` is the nearest of 256 levels of each pixel.
    """
    height, width = tile
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
    return np.stack((values, slopes), 2)


def _segments(side: int, tile: int, tiles: int) -> list[Segment]:
    """An axis in parts between the centres of tiles, of at most `_PIECE` pixels."""
    position = np.arange(side, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    first = np.floor(position).astype(int)
    weight = (position - first).astype(np.float32)
    found = []
    for number in np.unique(first):
        start, end = (int(edge) for edge in np.searchsorted(first, [number, number + 1]))
        neighbours = max(int(number), 0), min(int(number) + 1, tiles - 1)
        for edge in range(start, end, _PIECE):
            last = min(edge + _PIECE, end)
            found.append((edge, last, *neighbours, weight[edge:last]))
    return found
