"""The right and the left lung of a mask, their upper, middle and lower zones, and the share of each that is opaque.

Right is the patient's right: the left of the image. A zone is a third of the height of its lung. Radiologists divide at
the aortic arch and at the lower pulmonary veins (Borghesi & Maroldi 2020), which are near these thirds.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.masks import ONE_LUNG, Mask, bounds
from cxrtool.imaging.regions import LEVELS, REGIONS, SIDES


def lungs_of(mask: Mask) -> tuple[Mask, Mask]:
    """The right and the left lung of a mask (H, W); that of a lung that is not there is empty.

    Two components are the two lungs. A single one is divided at the column near its middle in which it is lowest, or
    is one lung where it is narrow.
    """
    box = bounds(mask)
    if box is None:
        return mask.copy(), mask.copy()
    _, left, height, width = box
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count > 2:
        first, second = sorted(range(1, count), key=lambda k: -int(stats[k, cv2.CC_STAT_AREA]))[:2]
        middle = (centres[first][0] + centres[second][0]) / 2
        # Small further components belong to the lung on their side.
        sides = np.array([0, *(1 if centre[0] < middle else 2 for centre in centres[1:])], np.uint8)[labels]
    elif width < ONE_LUNG * height:
        sides = np.where(mask > 0, 1 if left + width / 2 < mask.shape[1] / 2 else 2, 0)
    else:
        heights = np.count_nonzero(mask, axis=0)[left + width // 3 : left + width - width // 3]
        cut = left + width // 3 + int(np.argmin(heights))
        columns = np.where(np.arange(mask.shape[1]) < cut, 1, 2)
        sides = np.where(mask > 0, columns, 0)
    right, other = ((sides == side).astype(np.uint8) * np.uint8(255) for side in (1, 2))
    return right, other


def zones_of(lung: Mask) -> tuple[Mask, Mask, Mask]:
    """The upper, middle and lower zone of one lung (H, W); empty ones of an empty lung."""
    box = bounds(lung)
    zones = [np.zeros_like(lung) for _ in LEVELS]
    if box is not None:
        top, _, height, _ = box
        cuts = [top + round(height * k / len(LEVELS)) for k in range(len(LEVELS) + 1)]
        for zone, begin, end in zip(zones, cuts, cuts[1:], strict=False):
            zone[begin:end] = lung[begin:end]
    return zones[0], zones[1], zones[2]


def opaque_shares(opaque: NDArray[np.float32], lungs: Mask) -> dict[str, float | None]:
    """The opaque share of both lungs (`lungs`), of each lung and of each zone, in [0, 1].

    Args:
        opaque: (H, W) how opaque each pixel is: of a mask 0 or 1; of a network an estimate whose mean over a region
            is the share that it expects, also where it is sure of no single pixel. Only the mean is held in [0, 1].
        lungs: (H, W).

    Returns:
        None for a lung or a zone that is not in the mask.
    """
    shares: dict[str, float | None] = {"lungs": _mean(opaque, lungs)}
    for side, lung in zip(SIDES, lungs_of(lungs), strict=True):
        shares[side] = _mean(opaque, lung)
        for level, zone in zip(LEVELS, zones_of(lung), strict=True):
            shares[f"{side}_{level}"] = _mean(opaque, zone)
    return {name: shares[name] for name in REGIONS}


def _mean(values: NDArray[np.float32], region: Mask) -> float | None:
    return min(max(float(cv2.mean(values, region)[0]), 0.0), 1.0) if region.any() else None
