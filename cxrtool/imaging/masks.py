"""From a network's probability to a mask of lungs: clean-up, agreement with a reference, and whether it can be lungs.

Clean-up follows imlab-uiip/lung-segmentation-2d (threshold, small objects dropped, small holes filled, both below 2 %
of the picture) and then keeps two lungs. All of it works at the picture's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
"""(H, W), 0 outside and 255 inside."""

THRESHOLD = 0.5
SMALL = 0.02
"""Share of the picture below which an object is dropped and a hole is filled."""

BESIDE = 0.5
"""How much of its width the second lung may lie above or below the first and still lie beside it."""

OTHER = 0.15
"""Share of the larger lung's area from which on what lies beside it is a lung and no arm; by hand at least 0.58."""

NO_LUNGS, IMPLAUSIBLE = "no lungs found", "implausible lungs"

LEAST, MOST = 0.07, 0.65
"""Shares of the picture between which lungs lie. Of 110 radiographs whose lungs people outlined, from close crops to
whole upper bodies, they take 0.09 to 0.59, and 98 % take 0.19 to 0.57."""

UNLIKE = 0.35
"""The least share of the larger lung's area that the smaller has; by hand 0.58, and 0.67 in 99 %."""

ONE_LUNG = 0.8
"""Width over height below which a single component is one lung; by hand single lungs
have 0.57 in the median, and 95 % of them less."""

NARROW, WIDE = 0.6, 2.2
"""Width over height of both lungs together: by hand 0.85 to 1.69."""

ALONG = 0.5
"""Share of its extent along a border of the picture from which on a lung runs into it; by hand at most 0.33."""

UNSURE = 0.91
"""Sureness below which a network's answer is told as doubtful."""


@dataclass(frozen=True)
class Component:
    """A connected part of a mask: where it lies, in pixels, and its area."""

    label: int
    left: int
    top: int
    width: int
    height: int
    area: int


def clean(probability: NDArray[np.float32], threshold: float = THRESHOLD) -> Mask:
    """Make a mask of a probability (H, W): cut at `threshold`, drop small objects, fill small holes, keep two lungs.

    A pixel is inside when its probability is above the threshold. The pixels of an object touch at sides or corners,
    those of a hole at sides; what touches the picture's border is no hole.
    """
    mask = (probability > np.float32(threshold)).view(np.uint8) * np.uint8(255)
    least = SMALL * mask.size
    if _is_clean(mask, least):
        return mask
    labels, found = _components(mask, 8)
    large = [component for component in found if component.area >= least]
    if len(large) < len(found):
        mask = _only(labels, large)
    # In a frame of background all that touches the border is one, and never small.
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outside, gaps = _components(~np.asarray(framed, np.uint8), 4)
    holes = [gap for gap in gaps if gap.area < least and gap.left and gap.top]
    if holes:
        mask |= _only(outside, holes)[1:-1, 1:-1]
        labels, large = _components(mask, 8)
    lungs = two_lungs(large)
    return _only(labels, lungs) if len(lungs) < len(large) else mask


def _is_clean(mask: Mask, least: float) -> bool:
    """Whether there is nothing to do, as with most radiographs: at most two lungs, well above `least`, without a hole.

    Following outlines takes a tenth of the time of labelling every pixel.
    """
    outlines, nested = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not 0 < len(outlines) <= 2 or (nested[0, :, 3] >= 0).any():
        return False
    lungs = [_inside(outline) for outline in outlines]
    return all(lung.area >= least for lung in lungs) and len(two_lungs(lungs)) == len(lungs)


def two_lungs(components: Sequence[Component]) -> list[Component]:
    """The largest component and the largest of those that lie beside it, which are the two lungs.

    Where both lungs are one component, nothing of any size lies beside it.
    """
    if not components:
        return []
    first = max(components, key=lambda one: one.area)
    beside = [
        one for one in components
        if one is not first and one.area >= OTHER * first.area and _above(one, first) < BESIDE
    ]  # fmt: skip
    return [first, *([max(beside, key=lambda one: one.area)] if beside else [])]


def _inside(outline: Any) -> Component:
    """What an outline encloses; as it runs through the centres of the outermost pixels, its area is a little less."""
    left, top, width, height = cv2.boundingRect(outline)
    return Component(0, left, top, width, height, int(cv2.contourArea(outline)))


def _above(one: Component, other: Component) -> float:
    """How much of the narrower one's width lies above or below the other."""
    shared = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(shared, 0) / min(one.width, other.width)


def _components(mask: Mask, connectivity: int) -> tuple[NDArray[np.int32], list[Component]]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    return np.asarray(labels, np.int32), [Component(label, *map(int, row)) for label, row in enumerate(stats) if label]


def _only(labels: NDArray[np.int32], components: Sequence[Component]) -> Mask:
    table = np.zeros(int(labels.max()) + 1, np.uint8)
    table[[component.label for component in components]] = 255
    return table[labels]


def dice(one: Mask, other: Mask) -> float:
    """Dice's coefficient of two masks (H, W); 1 where both are empty, since they agree.

    >>> dice(np.array([[255, 255, 0, 0]], np.uint8), np.array([[0, 255, 255, 255]], np.uint8))
    0.4
    """
    both = cv2.countNonZero(one) + cv2.countNonZero(other)
    return 2 * cv2.countNonZero(cv2.bitwise_and(one, other)) / both if both else 1.0


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union (Jaccard) of two masks (H, W); 1 where both are empty.

    >>> iou(np.array([[255, 255, 0, 0]], np.uint8), np.array([[0, 255, 255, 255]], np.uint8))
    0.25
    """
    union = cv2.countNonZero(cv2.bitwise_or(one, other))
    return cv2.countNonZero(cv2.bitwise_and(one, other)) / union if union else 1.0


def share(mask: Mask) -> float:
    """Share of the picture that a mask covers."""
    return cv2.countNonZero(mask) / mask.size


def sureness(probability: NDArray[np.float32], threshold: float = THRESHOLD) -> float:
    """How sure a network is of its mask: the soft Dice of its probabilities (h, w) with the mask that they make.

    1 where all probabilities are 0 or 1; low where much lies between. 0 where the mask is empty.
    """
    inside = probability > threshold
    if not inside.any():
        return 0.0
    return float(2 * probability[inside].sum() / (probability.sum() + np.count_nonzero(inside)))


def doubt(mask: Mask, sure: float = 1.0, odd: str = "") -> str:
    """Why a mask can hardly be that of two lungs, in a few words; empty where nothing speaks against it.

    Args:
        mask: (H, W), as `clean` makes it.
        sure: What `sureness` says.
        odd: What is odd about the picture itself.
    """
    covered = share(mask)
    if not covered:
        return NO_LUNGS
    found = []
    if covered < LEAST:
        found.append(f"far too small ({covered:.0%} of the picture)")
    if covered > MOST:
        found.append(f"far too large ({covered:.0%} of the picture)")
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lungs = [_inside(outline) for outline in outlines]
    found += _doubt_of_shape(mask, lungs)
    found += [f"running into the {side} border" for side in _borders(mask, lungs)]
    if sure < UNSURE:
        found.append(f"a network that is unsure ({sure:.2f})")
    found += [odd] if odd else []
    return f"{IMPLAUSIBLE}: {', '.join(found)}" if found else ""


def _doubt_of_shape(mask: Mask, lungs: Sequence[Component]) -> list[str]:
    box = bounds(mask)
    if box is None:
        return []
    _, _, height, width = box
    if len(lungs) == 1 and width < height * ONE_LUNG:
        return ["only one"]
    areas = sorted(lung.area for lung in lungs)
    found = []
    if len(lungs) > 1 and areas[0] < UNLIKE * areas[-1]:
        found.append(f"very unlike in size (one has {areas[0] / areas[-1]:.0%} of the other's area)")
    if not NARROW < width / height < WIDE:
        found.append(f"of odd proportions ({width / height:.1f} times as wide as high)")
    return found


def _borders(mask: Mask, lungs: Sequence[Component]) -> list[str]:
    """The borders of the picture along which a lung runs for most of its height or width."""
    bottom, right = mask.shape
    lines = {"left": mask[:, 0], "right": mask[:, -1], "upper": mask[0], "lower": mask[-1]}
    touched = []
    for side, line in lines.items():
        if not line.any():
            continue
        along = [
            (one.height, line[one.top : one.top + one.height]) if side in ("left", "right")
            else (one.width, line[one.left : one.left + one.width])
            for one in lungs
            if {"left": one.left == 0, "right": one.left + one.width == right, "upper": one.top == 0,
                "lower": one.top + one.height == bottom}[side]
        ]  # fmt: skip
        if any(cv2.countNonZero(np.ascontiguousarray(part)) > ALONG * length for length, part in along):
            touched.append(side)
    return touched


def bounds(mask: Mask) -> tuple[int, int, int, int] | None:
    """The smallest rectangle around a mask: top, left, height, width; None where it is empty."""
    left, top, width, height = cv2.boundingRect(mask)
    return (top, left, height, width) if width else None
