"""A heatmap on its picture: where the network's square lies, what the map holds there, and how it is scaled.

The share of a map's energy (the sum of its values) that lies inside a mask is the measure of Wang et al. 2020
("Score-CAM: score-weighted visual explanations for convolutional neural networks", section 4.3, the energy-based
pointing game), whether its peak does, the pointing game of Zhang et al. 2018 ("Top-down neural attention by excitation
backprop").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.placing import Move, lay_back

Values = NDArray[np.float32]

LARGEST = 768
"""The longer side, in pixels, up to which a map is kept: its own cells are larger than a pixel by far, and a map of the
size of a detector's picture would take 60 MB."""


@dataclass(frozen=True)
class Figures:
    """What a map says of place.

    Attributes:
        peak: x and y, in pixels of the picture, of the map's largest value; None where there is none.
        energy_inside: Share of the map's energy inside the mask, 0 to 1; None without a mask or energy.
        peak_inside: Whether the peak lies inside the mask; None without a mask or peak.
        mask_share: Share of the picture that the mask covers, which a map that looks nowhere in particular would put
            inside it; None without a mask.
    """

    peak: tuple[int, int] | None
    energy_inside: float | None
    peak_inside: bool | None
    mask_share: float | None


def kept_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which the map of a picture is kept.

    >>> kept_size(160, 138), kept_size(3000, 1500)
    ((160, 138), (768, 384))
    """
    factor = min(1.0, LARGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def lay_on(values: Values, moves: Iterable[Move], height: int, width: int) -> Values:
    """Lay a map on the picture that the network's input was made of.

    Args:
        values: (S, S), the map at the size of the network's input.
        moves: How the picture became that input, step by step; what was cut off, the network did not see, and the map
            is 0 there.
        height: Of the picture.
        width: Of the picture.

    Returns:
        (h, w) as `kept_size` says.
    """
    return lay_back(values, moves, (height, width), kept_size(height, width))


def figures(values: Values, height: int, width: int, mask: NDArray[np.uint8] | None) -> Figures:
    """What a map says of place.

    Args:
        values: (h, w), at least 0.
        height: Of the picture, in whose pixels the peak is told.
        width: Of the picture.
        mask: (h, w), above 0 inside; None where there is none.
    """
    energy = float(values.sum(dtype=np.float64))
    inside = mask > 0 if mask is not None and mask.any() else None
    share = None if inside is None else float(inside.mean())
    if energy <= 0:
        return Figures(None, None, None, share)
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    peak = int((column + 0.5) * width / values.shape[1]), int((row + 0.5) * height / values.shape[0])
    if inside is None:
        return Figures(peak, None, None, None)
    return Figures(peak, float(values[inside].sum(dtype=np.float64)) / energy, bool(inside[row, column]), share)


def rescale(values: Values, highest: float | None) -> Values:
    """A map in [0, 1] for showing it.

    Args:
        values: (h, w), at least 0.
        highest: What becomes 1, for all maps of a run alike; None takes the map's own smallest and largest value.
    """
    low, high = (0.0, highest) if highest is not None else (float(values.min()), float(values.max()))
    if high <= low:
        return np.zeros_like(values)
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0), np.float32)


def doubt(values: Values, target: str) -> str:
    """A word on a map that says nothing of place; empty for any other."""
    if not values.any():
        return f"empty map: nothing in the picture speaks for {target}"
    if float(np.ptp(values)) <= 1e-6 * float(values.max()):
        return "flat map: the same everywhere"
    return ""


def highest_of(maxima: Iterable[float]) -> float:
    """The one value by which all maps of a run are scaled: the largest there is, or 1 where all are empty."""
    largest = max((value for value in maxima if math.isfinite(value)), default=0.0)
    return largest if largest > 0 else 1.0
