"""Histogram matching by lookup, and the choice of the reference image.

Matching maps the cumulative histogram of an image onto that of a reference, linear between the levels of the reference,
as `skimage.exposure.match_histograms` does (Gonzalez & Woods, "Digital Image Processing", histogram specification). An
image has at most 65,536 different values, so that the map is computed once for each level and looked up for each pixel.
The result is rounded to the image's own levels; scikit-image leaves it as float.

A reference is stored as its exact histogram, which is needed for the quantiles of a 16-bit image to within a level. It
is written as text in one line of JSON: see `pack`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import InputError
from cxrtool.imaging.resize import Pixels

DEPTHS = (256, 65536)
"""Levels of images of 8 and of 16 bits."""

CELLS = 256
"""Bins of the histograms that are averaged and compared, whatever the depth of an image."""

_DARK = 3

_KEPT = 1 << 18
"""Pixels of an image up to which the levels of all counts are kept: half a megabyte for each reference."""

Counts = NDArray[np.int64]
"""Pixels of each level, (256,) or (65536,)."""


@dataclass
class Reference:
    """The quantiles of a reference.

    Attributes:
        ranks: (k,) share of the reference's pixels up to each value, increasing, the last one 1.
        values: (k,) the values in the reference, in [0, 1], increasing.
    """

    ranks: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Counts) -> Reference:
        """From a histogram that counts at least one pixel."""
        present = np.flatnonzero(counts)
        return cls(np.cumsum(counts[present]) / counts.sum(), present / (len(counts) - 1))

    def __post_init__(self) -> None:
        # The pixels of the last image, and the level for each number of them; replaced as a whole, for threads.
        self._last: tuple[int, Pixels | None] = 0, None

    def levels(self, below: Counts) -> Pixels:
        """The matched level for each level of an image, by its number of pixels up to this level, (256,) or (65536,).

        For a small image this takes longer than the lookup of its pixels. Where images of one size follow each other,
        the levels of all possible counts are computed once and kept.
        """
        total, white = int(below[-1]), len(below) - 1
        size, known = self._last
        if white < total <= _KEPT and size == total:
            if known is None:
                known = self._match(np.arange(total + 1), white)
                self._last = total, known
            return known[below]
        self._last = total, None
        return self._match(below, white)

    def _match(self, below: Counts, white: int) -> Pixels:
        matched = np.interp(below / below[-1], self.ranks, self.values)
        levels: Pixels = np.rint(matched * white).astype(np.uint8 if white < CELLS else np.uint16)
        return levels


def count_levels(pixels: Pixels) -> Counts:
    """The histogram of an image (H, W), uint8 or uint16, with a bin for each level."""
    levels = int(np.iinfo(pixels.dtype).max) + 1
    return np.asarray(cv2.calcHist([pixels], [0], None, [levels], [0, levels]).ravel(), np.int64)


def match(pixels: Pixels, reference: Reference) -> Pixels:
    """Give an image (H, W), uint8 or uint16, the histogram of a reference of any depth and size.

    >>> match(np.array([[0, 1], [2, 3]], np.uint8), Reference.of(np.bincount([10, 20, 30, 40], minlength=256)))
    array([[10, 20],
           [30, 40]], dtype=uint8)
    """
    return take(reference.levels(np.cumsum(count_levels(pixels))), pixels)


def take(table: NDArray[Any], levels: Pixels) -> NDArray[Any]:
    """The entry of a table, with one for each level of the type, for each of some levels (H, W), uint8 or uint16."""
    try:
        return np.asarray(cv2.LUT(levels, table))
    except cv2.error:
        # Older OpenCV looks up 8 bits only.
        return np.asarray(table.take(levels))


def pack(counts: Counts) -> str:
    """A histogram as text: the count of each level in order; a negative number -n means n levels without pixels.

    >>> pack(np.bincount([1, 1, 5], minlength=256))
    '-1 2 -3 1 -250'
    """
    edges = np.flatnonzero(np.diff(counts == 0)) + 1
    words: list[str] = []
    for run in np.split(counts, edges):
        words += map(str, run.tolist()) if run[0] else [str(-len(run))]
    return " ".join(words)


def unpack(text: str) -> Counts:
    """The histogram that `pack` wrote.

    Raises:
        InputError: No whole numbers, another number of levels than 256 or 65,536, or no pixel.
    """
    try:
        numbers = np.array(text.split(), np.int64)
    except (ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"expected the histogram of a reference as whole numbers, found '{str(text)[:40]}'") from error
    lengths = np.where(numbers < 0, -numbers, 1)
    if len(numbers) > max(DEPTHS) or lengths.max(initial=0) > max(DEPTHS) or int(lengths.sum()) not in DEPTHS:
        raise InputError(f"expected a histogram of 256 or 65,536 levels, found '{text[:40]}'")
    counts = np.repeat(np.maximum(numbers, 0), lengths)
    if not counts.any():
        raise InputError("expected the histogram of a reference, found one without a pixel")
    return counts


def cells_of(counts: Counts) -> Counts:
    """The pixels in each of 256 bins from black to white, (256,), whatever the depth.

    >>> cells_of(np.ones(65536, np.int64))[:2].tolist()
    [256, 256]
    """
    return np.asarray(counts.reshape(CELLS, -1).sum(1), np.int64)


def shares(counts: Counts) -> NDArray[np.float32]:
    """The share of pixels in each of 256 bins from black to white, (256,), whatever the depth."""
    cells = cells_of(counts)
    return np.asarray(cells / cells.sum(), np.float32)


def darkest_share(counts: Counts) -> float:
    """The share of pixels within 1 % of the range above the darkest one.

    After matching to a reference, the same share of every image becomes that dark, whatever it shows.
    """
    cells = shares(counts)
    first = int(np.flatnonzero(cells)[0])
    return float(cells[first : first + _DARK].sum())


def nearest_to_mean(histograms: NDArray[np.float32]) -> int:
    """The index of the image whose histogram is nearest to the mean of all histograms.

    The distance is the earth mover's distance, which in one dimension is the area between the cumulative histograms. In
    a distance by single bins, an empty level beside a full one, which any change of contrast leaves in an 8-bit image,
    would count as much as a change from black to white.

    Args:
        histograms: (N, 256) as `shares` gives them, N at least 1.

    Returns:
        The index; the first of several equally near ones.
    """
    cumulative = np.cumsum(histograms, 1, dtype=np.float64)
    return int(np.abs(cumulative - cumulative.mean(0)).sum(1).argmin())
