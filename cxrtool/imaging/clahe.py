"""Contrast-limited adaptive histogram equalisation: as OpenCV does it, and the same for pictures of 16 bits.

Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994). OpenCV counts the pixels of a
tile in as many cells as the picture has levels. With 65,536 of them nearly every cell holds no pixel or a single one,
and the limit, which is a number of pixels a cell, no longer limits the contrast but wipes it out or lets it pass,
depending on how many of the levels are in use: the same radiograph in 8 and in 16 bits would come out 24 of 255 levels
apart in the mean. Therefore a picture of 16 bits is counted in 256 cells too, and only looked up more finely.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.resize import Pixels

CLIP, TILES = 2.0, 8
"""The limit, as a multiple of the even histogram, and the tiles a row and a column."""

_CELLS, _STEP, _PIECE = 256, 257, 128

Table = NDArray[np.float32]


def clahe(pixels: Pixels, clip: float = CLIP, tiles: int = TILES) -> Pixels:
    """Equalise a picture (H, W), uint8 or uint16, tile by tile.

    Args:
        pixels: The picture.
        clip: The most that a grey level may count, as a multiple of the mean over levels; above 0.
        tiles: Tiles a row and a column, at least 1.

    Returns:
        The same shape and type.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(cv2.createCLAHE(clip, (tiles, tiles)).apply(pixels))
    return _clahe_deep(pixels, clip, tiles)


def _clahe_deep(pixels: Pixels, clip: float, tiles: int) -> Pixels:
    padding = [-side % tiles for side in pixels.shape]
    if any(padding):
        # As OpenCV: where one side does not divide, the other gets a whole row of tiles' remainders even if it does.
        padding = [tiles - side % tiles for side in pixels.shape]
    height, width = ((side + more) // tiles for side, more in zip(pixels.shape, padding, strict=True))
    tables = _tables(pixels, padding, (height, width), clip, tiles)
    across = _stretches(pixels.shape[1], width, tiles)
    result = np.empty_like(pixels)
    for top, bottom, above, below, downward in _stretches(pixels.shape[0], height, tiles):
        for left, right, before, behind, rightward in across:
            place = slice(top, bottom), slice(left, right)
            # Level 257 k of 16 bits is level k of 8; between two of them a table is linear.
            part = (pixels[place] // _STEP).astype(np.intp)
            more = (pixels[place] - part * _STEP).astype(np.float32) * np.float32(1 / _STEP)
            upper, lower = (
                _between(
                    _look_up(tables[row, before], part, more), _look_up(tables[row, behind], part, more), rightward
                )
                for row in (above, below)
            )
            values = _between(upper, lower, downward[:, None])
            result[place] = np.rint(values, out=values)
    return result


def _look_up(table: Table, levels: NDArray[np.intp], beyond: Table) -> Table:
    """The values (h, w) of a table (256, 2) at levels (h, w) and a share of the step to the next."""
    # Value and slope come together, as one complex number.
    pairs = table.view(np.complex64)[:, 0].take(levels, mode="clip")
    values = pairs.imag * beyond
    values += pairs.real
    return values


def _between(first: Table, second: Table, weight: Table) -> Table:
    second -= first
    second *= weight
    second += first
    return second


def _tables(pixels: Pixels, padding: list[int], tile: tuple[int, int], clip: float, tiles: int) -> Table:
    """What each of 256 levels becomes in each tile, of 65,535, and how far the next is: (tiles, tiles, 256, 2)."""
    height, width = tile
    cells = ((pixels.astype(np.uint32) + _STEP // 2) // _STEP).astype(np.uint8)
    cells = np.asarray(cv2.copyMakeBorder(cells, 0, padding[0], 0, padding[1], cv2.BORDER_REFLECT_101))
    counts = np.empty((tiles, tiles, _CELLS), np.int64)
    for y, x in np.ndindex(tiles, tiles):
        part = cells[y * height : (y + 1) * height, x * width : (x + 1) * width]
        counts[y, x] = cv2.calcHist([part], [0], None, [_CELLS], [0, _CELLS]).ravel()
    limit = max(int(clip * height * width / _CELLS), 1)
    excess = np.maximum(counts - limit, 0).sum(2)
    counts = np.minimum(counts, limit) + (excess // _CELLS)[..., None]
    for place in np.ndindex(tiles, tiles):
        if rest := int(excess[place]) % _CELLS:
            counts[place][:: max(_CELLS // rest, 1)][:rest] += 1
    coarse = np.minimum(np.cumsum(counts, 2) * (65535 / (height * width)), 65535).astype(np.float32)
    slopes = np.zeros_like(coarse)
    slopes[..., :-1] = np.diff(coarse, axis=2)
    return np.stack((coarse, slopes), 3)


def _stretches(side: int, tile: int, tiles: int) -> list[tuple[int, int, int, int, Table]]:
    """An axis between the middles of tiles: start, end, the tiles on both sides, and the weight of the second."""
    place = np.arange(side, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    first = np.floor(place).astype(int)
    weight = (place - first).astype(np.float32)
    found = []
    for number in np.unique(first):
        start, end = (int(edge) for edge in np.searchsorted(first, [number, number + 1]))
        beside = max(int(number), 0), min(int(number) + 1, tiles - 1)
        # In pieces that the processor's own memory holds with all that is computed of them.
        for edge in range(start, end, _PIECE):
            last = min(edge + _PIECE, end)
            found.append((edge, last, *beside, weight[edge:last]))
    return found
