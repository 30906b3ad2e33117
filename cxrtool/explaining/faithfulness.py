"""Deletion and insertion: does the prediction depend on the pixels that a heatmap marks?

Petsiuk, Das & Saenko 2018, "RISE: randomized input sampling for explanation of black-box models", BMVC, section 4.2:
the pixels of an image are removed, the hottest first, and the probability of the class is followed; and they are put
back into a blurred image in the same order. The area under the curve, over the share of the pixels from 0 to 1, is low
for deletion and high for insertion where the map marks what the network uses.

Removed pixels become the mean grey value of the image, and the image into which pixels are put back is blurred by a
Gaussian with a standard deviation of 5 % of the side. Pixels of equal value are taken in random order. Removing pixels
changes a prediction in any order, so that an area means little alone: beside it is that of a random map, which has as
many cells as the heatmap and is enlarged in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BLUR = 0.05
"""Standard deviation of the blur, as a share of the side of the image."""

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Areas:
    """The areas under the curves of a map, and of a random one; each from 0 to 1."""

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float


def measure(
    pixels: Pixels,
    values: NDArray[np.float32],
    cells: int,
    steps: int,
    predict: Callable[[list[Pixels]], NDArray[np.float64]],
    rng: np.random.Generator,
) -> Areas:
    """The areas for one image.

    Args:
        pixels: (S, S) or (S, S, 3), the input of the network, uint8 or uint16.
        values: (S, S), its heatmap.
        cells: Along a side of the map before it was enlarged.
        steps: In which all pixels are removed.
        predict: The probability of the class (n,) of inputs of the network.
        rng: For the random map, and the order of pixels of equal value.
    """
    random = cv2.resize(rng.random((cells, cells), np.float32), pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    ranks = [_ranks(values, rng), _ranks(np.asarray(random, np.float32), rng)]
    inputs = [changed for rank in ranks for changed in _remove(pixels, rank, steps)]
    curves = predict(inputs).reshape(len(ranks), 2, steps + 1)
    areas = np.asarray(np.trapezoid(curves, dx=1 / steps, axis=-1))
    return Areas(float(areas[0, 0]), float(areas[0, 1]), float(areas[1, 0]), float(areas[1, 1]))


def _ranks(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rank (S, S) of each pixel, the hottest first."""
    order = np.lexsort((rng.random(values.size), -values.ravel()))
    ranks = np.empty(values.size, np.int64)
    ranks[order] = np.arange(values.size)
    return ranks.reshape(values.shape)


def _remove(pixels: Pixels, ranks: NDArray[np.int64], steps: int) -> Iterator[Pixels]:
    """The image with more and more pixels deleted, and then the blurred one with more and more put in."""
    side = pixels.shape[0]
    grey = np.rint(pixels.mean((0, 1))).astype(pixels.dtype)
    blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), BLUR * side), pixels.dtype)
    for before, after in ((pixels, np.broadcast_to(grey, pixels.shape)), (blurred, pixels)):
        for step in range(steps + 1):
            taken = ranks < round(step * ranks.size / steps)
            yield np.where(taken[..., None] if pixels.ndim == 3 else taken, after, before)
