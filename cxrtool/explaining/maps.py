"""A heatmap on its image: its position, its measures against a mask, and its scale.

The share of the energy of a map (the sum of its values) inside a mask is the measure of Wang et al. 2020 ("Score-CAM:
score-weighted visual explanations for convolutional neural networks", section 4.3, the energy-based pointing game).
Whether its peak is inside is the pointing game of Zhang et al. 2018 ("Top-down neural attention by excitation
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
"""The longer side of a saved map, in pixels, at most: its cells are much larger than a pixel, and a map of the size of
a raw radiograph would need 60 MB."""


@dataclass(frozen=True)
class Figures:
    """The measures of a map; None where there is no mask or no energy.

    Attributes:
        peak: x and y of the highest value, in pixels of the image.
        energy_inside: Share of the energy of the map inside the mask, 0 to 1.
        peak_inside: Whether the peak is inside the mask.
        mask_share: Share of the image that the mask covers: the energy inside it of a uniform map.
    """

    peak: tuple[int, int] | None
    energy_inside: float | None
    peak_inside: bool | None
    mask_share: float | None


def kept_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the saved map of an image.

    >>> kept_size(160, 138), kept_size(3000, 1500)
    ((160, 138), (768, 384))
    """
    factor = min(1.0, LARGEST / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def lay_on(values: Values, moves: Iterable[Move], height: int, width: int) -> Values:
    """Map a heatmap (S, S), at the size of the network input, back to the image (height, width) of that input.

    `moves` are the steps from the image to the input. Regions that they cut off are 0 in the map, of `kept_size`.
    """
    return lay_back(values, moves, (height, width), kept_size(height, width))


def figures(values: Values, height: int, width: int, mask: NDArray[np.uint8] | None) -> Figures:
    """The measures of a map (h, w) >= 0 of an image (height, width); the mask (h, w) is above 0 inside."""
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
    """Scale a map >= 0 to [0, 1] for display: `highest` becomes 1; None uses its own minimum and maximum."""
    low, high = (0.0, highest) if highest is not None else (float(values.min()), float(values.max()))
    if high <= low:
        return np.zeros_like(values)
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0), np.float32)


def doubt(values: Values, target: str) -> str:
    """A warning for a map without information on position; empty for any other."""
    if not values.any():
        return f"empty map: no region of the image supports {target}"
    if float(np.ptp(values)) <= 1e-6 * float(values.max()):
        return "flat map: the same value everywhere"
    return ""


def highest_of(maxima: Iterable[float]) -> float:
    """The common scale of all maps of a run: their maximum, or 1 where all are empty."""
    largest = max((value for value in maxima if math.isfinite(value)), default=0.0)
    return largest if largest > 0 else 1.0
