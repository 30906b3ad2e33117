"""Contrast-limited adaptive histogram equalisation: as in OpenCV, with the same result for images of 16 bits.

Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994). OpenCV counts the pixels of a
tile in one bin for each level. With 65,536 bins nearly every bin has at most one pixel, and the limit, which is a
number of pixels a bin, no longer limits the contrast as intended: the same radiograph in 8 and in 16 bits would differ
by 24 of 255 levels in the mean. Therefore 16 bits are counted in 256 bins too, and the lookup is interpolated.

The tables of the tiles above and below are blended first, once for each row. Then a pixel needs four lookups: of two
levels, for the tiles on its left and right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.histogram import take
from cxrtool.imaging.resize import Pixels

CLIP, TILES = 2.0, 8
"""The limit, as a multiple of the uniform histogram, and the tiles a row and a column."""

_BINS, _STEP, _CODES, _BLOCK = 256, 257, 1 << 16, 1 << 15
"""Levels of a table; 16-bit levels between two of them; entries of a lookup; pixels of what fits the cache."""

Table = NDArray[np.float32]


def clahe(pixels: Pixels, clip: float = CLIP, tiles: int = TILES) -> Pixels:
    """Equalise an image (H, W), uint8 or uint16, tile by tile; the result has the same shape and type.

    Args:
        pixels: The image.
        clip: The largest count of a grey level, as a multiple of the mean over levels; above 0.
        tiles: Tiles a row and a column, 1 to 256.
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
    # The half makes a conversion to whole numbers, which cuts, round.
    tables = _tables(pixels, padding, (height, width), clip, tiles).reshape(tiles, -1) + np.float32(0.5)
    tables = np.concatenate((tables, tables[-1:]))
    size = tables.shape[1]
    above, downward = _between_tiles(pixels.shape[0], height, tiles)
    shares = np.stack((1 - downward, downward), 1)
    left, rightward = _between_tiles(pixels.shape[1], width, tiles)
    # As many rows at once as 16 bits can tell apart: a code is row, tile on the left, level.
    some = max(1, min(_CODES // size, _BLOCK // pixels.shape[1]))
    offsets = (np.arange(some)[:, None] * size + left * _BINS).astype(np.uint16)
    rightward = np.repeat(rightward[None], some, 0)
    # What is looked up beside the last tile or above the last level has no meaning, and the weight 0.
    entries = np.zeros(_CODES + _BINS + 1, np.float32)
    same, higher, beside, higher_beside = (entries[start:][:_CODES] for start in (0, 1, _BINS, _BINS + 1))
    result = np.empty_like(pixels)
    for rows in _groups(above, some):
        count, tile = rows.stop - rows.start, above[rows.start]
        blended = entries[: count * size].reshape(count, size)
        np.matmul(shares[rows], tables[tile : tile + 2], out=blended)
        codes = pixels[rows] // _STEP
        fraction = np.multiply(pixels[rows] - codes * _STEP, np.float32(1 / _STEP), dtype=np.float32)
        codes += offsets[:count]
        values, change = (_look_up(codes, *two, fraction) for two in ((same, higher), (beside, higher_beside)))
        change -= values
        cv2.accumulateProduct(rightward[:count], change, values)
        result[rows] = values
    return result


def _groups(above: NDArray[np.intp], most: int) -> Iterator[slice]:
    """The rows below the centre of one tile, at most so many at once."""
    edges = [0, *(np.flatnonzero(np.diff(above)) + 1).tolist(), len(above)]
    for start, end in pairwise(edges):
        for top in range(start, end, most):
            yield slice(top, min(top + most, end))


def _look_up(codes: Pixels, lower: Table, upper: Table, fraction: Table) -> Table:
    """The value of each pixel between its entries in two tables."""
    values, change = (take(table, codes) for table in (lower, upper))
    change -= values
    cv2.accumulateProduct(fraction, change, values)
    return values


def _tables(pixels: Pixels, padding: list[int], tile: tuple[int, int], clip: float, tiles: int) -> Table:
    """The new value of each of 256 levels in each tile, up to 65,535: (tiles, tiles, 256)."""
    height, width = tile
    # The nearest level: level k of 8 bits is 257 k of 16.
    bins = cv2.convertScaleAbs(pixels, alpha=1 / _STEP)
    if any(padding):
        bins = cv2.copyMakeBorder(bins, 0, padding[0], 0, padding[1], cv2.BORDER_REFLECT_101)
    counts = np.empty((tiles, tiles, _BINS), np.int32)
    for y, x in np.ndindex(tiles, tiles):
        part = bins[y * height : (y + 1) * height, x * width : (x + 1) * width]
        counts[y, x] = cv2.calcHist([part], [0], None, [_BINS], [0, _BINS]).ravel()
    np.minimum(counts, max(int(clip * height * width / _BINS), 1), out=counts)
    each, rest = np.divmod(height * width - counts.sum(2), _BINS)
    counts += each[..., None].astype(np.int32)
    for levels, more in zip(counts.reshape(-1, _BINS), rest.ravel().tolist(), strict=True):
        if more:
            step = _BINS // more
            levels[: more * step : step] += 1
    values: Table = np.minimum(np.cumsum(counts, 2) * (65535 / (height * width)), 65535).astype(np.float32)
    return values


def _between_tiles(side: int, tile: int, tiles: int) -> tuple[NDArray[np.intp], Table]:
    """For each pixel of an axis: the tile whose centre is before it, and the weight of the next tile.

    Before the first centre, and after the last, the weight is 0.
    """
    position = np.arange(side, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    position = position.clip(0, tiles - 1)
    first = position.astype(np.intp)
    return first, position - first.astype(np.float32)
