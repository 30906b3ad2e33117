"""From a network's probability to a lung mask: clean-up, agreement with a reference, and plausibility.

Clean-up follows imlab-uiip/lung-segmentation-2d (threshold, small objects removed, small holes filled, both below 2 %
of the image) and then keeps two lungs. All of it works at the image's own size.
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
"""Share of the image below which an object is removed and a hole is filled."""

BESIDE = 0.5
"""Two components are side by side when less than this share of the narrower one's width is above or below the other."""

OTHER = 0.15
"""Smallest area of the second lung as a share of the first; a smaller one may be an arm. Manual masks: over 0.58."""

NO_LUNGS, IMPLAUSIBLE = "no lungs found", "implausible lungs"

LEAST, MOST = 0.07, 0.65
"""Plausible share of the image covered by the lungs. In the manual masks of 110 radiographs, from close crops to whole
upper bodies, it is 0.09 to 0.59, and 0.19 to 0.57 in 98 %."""

UNLIKE = 0.35
"""Smallest plausible area of the smaller lung as a share of the larger; manual masks: 0.58, and 0.67 in 99 %."""

ONE_LUNG = 0.8
"""Width over height below which a single component is one lung; manual masks of single lungs: 0.57 in the median, and
less in 95 %."""

NARROW, WIDE = 0.6, 2.2
"""Plausible width over height of both lungs together; manual masks: 0.85 to 1.69."""

ALONG = 0.5
"""Share of a lung's height or width on a border of the image above which it runs into it; manual masks: up to 0.33."""

UNSURE = 0.91
"""Sureness below which a mask is reported as doubtful."""

POOR = 0.855
"""Expected Dice below which a mask is reported as doubtful. Of 1,498 masks of unseen patients, most with drawn haze,
all 38 with a Dice below 0.75 and 3 % of those above 0.90 were expected to have less."""


@dataclass(frozen=True)
class Component:
    """A connected part of a mask: its area in pixels, and its bounding box where that is known."""

    label: int
    area: int
    left: int = 0
    top: int = 0
    width: int = 0
    height: int = 0


def clean(probability: NDArray[np.float32], threshold: float = THRESHOLD) -> Mask:
    """Make a mask from a probability (H, W): threshold, remove small objects, fill small holes, keep two lungs.

    A pixel is inside when its probability is above the threshold. Objects are 8-connected, holes 4-connected; a
    background component that touches the image's border is not a hole.
    """
    mask = (probability > np.float32(threshold)).view(np.uint8) * np.uint8(255)
    least = SMALL * mask.size
    if _is_clean(mask, least):
        return mask
    # Everything around the objects is background, and stays it.
    left, top, width, height = cv2.boundingRect(mask)
    if width:
        objects = mask[top : top + height, left : left + width]
        objects[:] = _cleaned(objects, least)
    return mask


def _cleaned(mask: Mask, least: float) -> Mask:
    """The mask with its objects and holes below `least` pixels gone, and at most two lungs."""
    labels, found = _components(mask, 8)
    large = [component for component in found if component.area >= least]
    if len(large) < len(found):
        mask = _only(labels, large)
    # With a frame of background, all background that touches the border is one component.
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    outside, gaps = _components(~np.asarray(framed, np.uint8), 4)
    holes = [gap for gap in gaps if gap.area < least and gap.label != outside[0, 0]]
    if holes:
        mask = mask | _only(outside, holes)[1:-1, 1:-1]
        labels, large = _components(mask, 8)
    lungs = two_lungs([_boxed(labels, one) for one in large])
    return _only(labels, lungs) if len(lungs) < len(large) else mask


def most_probable(probability: NDArray[np.float32], region: Mask | None, share: float) -> Mask:
    """The most probable pixels (H, W) of a region that cover this share of it; None is the whole image.

    Where many pixels are equally probable, all or none of them are taken, whatever comes nearer to the share.
    """
    inside = np.ones(probability.shape, bool) if region is None else region > 0
    values = probability[inside]
    count = round(share * len(values))
    found = np.zeros(probability.shape, np.uint8)
    if count:
        least = np.partition(values, len(values) - count)[len(values) - count]
        above, equal = np.count_nonzero(values > least), np.count_nonzero(values >= least)
        chosen = probability > least if count - above < equal - count else probability >= least
        found[chosen & inside] = 255
    return found


def _is_clean(mask: Mask, least: float) -> bool:
    """Whether there is nothing to do, as with most radiographs: at most two lungs, each above `least`, without holes.

    Finding outlines takes a tenth of the time of labelling every pixel.
    """
    outlines, nested = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not 0 < len(outlines) <= 2 or (nested[0, :, 3] >= 0).any():
        return False
    lungs = [_inside(outline) for outline in outlines]
    return all(lung.area >= least for lung in lungs) and len(two_lungs(lungs)) == len(lungs)


def two_lungs(components: Sequence[Component]) -> list[Component]:
    """The largest component and the largest one beside it: the two lungs.

    Where both lungs are one component, it is returned alone.
    """
    if not components:
        return []
    first = max(components, key=lambda one: one.area)
    beside = [
        one
        for one in components
        if one is not first and one.area >= OTHER * first.area and _shared_columns(one, first) < BESIDE
    ]
    return [first, *([max(beside, key=lambda one: one.area)] if beside else [])]


def _inside(outline: Any) -> Component:
    """The component in an outline; its area is a little too small, because outlines connect the centres of pixels."""
    left, top, width, height = cv2.boundingRect(outline)
    return Component(0, int(cv2.contourArea(outline)), left, top, width, height)


def _shared_columns(one: Component, other: Component) -> float:
    """The share of the narrower component's width that is above or below the other."""
    shared = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(shared, 0) / min(one.width, other.width)


def _components(mask: Mask, connectivity: int) -> tuple[NDArray[np.int32], list[Component]]:
    """The label of each pixel (H, W), and the components without their boxes; the background's label is 0."""
    # OpenCV's own statistics, with boxes and centres, take five times as long as the labels.
    labels = np.asarray(cv2.connectedComponents(mask, connectivity=connectivity)[1], np.int32)
    areas = np.bincount(labels.ravel())
    return labels, [Component(label, int(area)) for label, area in enumerate(areas) if label]


def _boxed(labels: NDArray[np.int32], component: Component) -> Component:
    left, top, width, height = cv2.boundingRect((labels == component.label).view(np.uint8))
    return Component(component.label, component.area, left, top, width, height)


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
    """Share of the image that a mask covers."""
    return cv2.countNonZero(mask) / mask.size


def cut(mask: Mask, region: Mask) -> Mask:
    """The part of a mask (H, W) that is in a region."""
    return np.asarray(cv2.bitwise_and(mask, region), np.uint8)


def share_of(mask: Mask, region: Mask) -> float:
    """Share of a region (H, W) that a mask covers; 0 of an empty region."""
    size = cv2.countNonZero(region)
    return cv2.countNonZero(cv2.bitwise_and(mask, region)) / size if size else 0.0


def sureness(probability: NDArray[np.float32], threshold: float = THRESHOLD) -> float:
    """How sure a network is of its mask: the soft Dice of its probabilities (h, w) with the resulting mask.

    1 where all probabilities are 0 or 1; low where many are in between; 0 where the mask is empty.
    """
    inside = probability > threshold
    if not inside.any():
        return 0.0
    return float(2 * probability[inside].sum() / (probability.sum() + np.count_nonzero(inside)))


def doubt(mask: Mask, sure: float = 1.0, odd: str = "", expected: float = 1.0) -> str:
    """Why a mask is probably not that of two lungs, in a few words; empty for a plausible mask.

    Args:
        mask: (H, W), from `clean`.
        sure: From `sureness`.
        odd: A warning about the image itself.
        expected: The Dice to be expected, from `lung_shapes.expected_dice`.
    """
    covered = share(mask)
    if not covered:
        return NO_LUNGS
    found = []
    if covered < LEAST:
        found.append(f"far too small ({covered:.0%} of the image)")
    if covered > MOST:
        found.append(f"far too large ({covered:.0%} of the image)")
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    lungs = [_inside(outline) for outline in outlines]
    found += _doubt_of_shape(mask, lungs)
    found += [f"running into the {side} border" for side in _borders(mask, lungs)]
    if sure < UNSURE:
        found.append(f"a network that is unsure ({sure:.2f})")
    if expected < POOR:
        found.append(f"probably a poor outline (expected Dice {expected:.2f})")
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
        found.append(f"very different in size (one has {areas[0] / areas[-1]:.0%} of the other's area)")
    if not NARROW < width / height < WIDE:
        found.append(f"unusual proportions ({width / height:.1f} times as wide as high)")
    return found


def _borders(mask: Mask, lungs: Sequence[Component]) -> list[str]:
    """The borders of the image that a lung touches with most of its height or width."""
    touched = set()
    for lung in lungs:
        rows, columns = slice(lung.top, lung.top + lung.height), slice(lung.left, lung.left + lung.width)
        for side, reaches, line in (
            ("left", lung.left == 0, mask[rows, 0]),
            ("right", columns.stop == mask.shape[1], mask[rows, -1]),
            ("upper", lung.top == 0, mask[0, columns]),
            ("lower", rows.stop == mask.shape[0], mask[-1, columns]),
        ):
            if reaches and np.count_nonzero(line) > ALONG * line.size:
                touched.add(side)
    return [side for side in ("left", "right", "upper", "lower") if side in touched]


def bounds(mask: Mask) -> tuple[int, int, int, int] | None:
    """The smallest rectangle around a mask: top, left, height, width; None where it is empty."""
    left, top, width, height = cv2.boundingRect(mask)
    return (top, left, height, width) if width else None
