"""Crops to the lungs, and images in which the lungs, or everything else, are black.

After the lung crop of Tabik et al. 2020 (COVID-SDNet): the smallest rectangle around both lungs, plus 2.5 % on each
side. The paper does not state whether this is a share of the image or of the rectangle; both are implemented.
"""

from __future__ import annotations

import math

import numpy as np

from cxrtool.imaging.fits import IMAGE, MARGIN
from cxrtool.imaging.masks import Mask, bounds
from cxrtool.imaging.resize import Pixels

Box = tuple[int, int, int, int]
"""Top, left, height, width."""


def lung_box(mask: Mask, margin: float = MARGIN, margin_of: str = IMAGE) -> Box:
    """The smallest rectangle around a mask (H, W), and a margin on each side, inside the image.

    Args:
        mask: Above 0 inside. The rectangle of an empty mask is the whole image.
        margin: On each side, as a share of that side's length; rounded to the nearest pixel, halves upwards.
        margin_of: `image` or `box`: the reference of the share.

    >>> mask = np.zeros((100, 200), np.uint8)
    >>> mask[40:60, 50:150] = 255
    >>> lung_box(mask, 0.1), lung_box(mask, 0.1, "box"), lung_box(mask, 0.5)
    ((30, 30, 40, 140), (38, 40, 24, 120), (0, 0, 100, 200))
    """
    around = bounds(mask)
    if around is None:
        return 0, 0, mask.shape[0], mask.shape[1]
    top, left, height, width = around
    reference = mask.shape if margin_of == IMAGE else (height, width)
    down, across = (math.floor(margin * side + 0.5) for side in reference)
    first = max(top - down, 0), max(left - across, 0)
    last = min(top + height + down, mask.shape[0]), min(left + width + across, mask.shape[1])
    return first[0], first[1], last[0] - first[0], last[1] - first[1]


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The part of an image (H, W) in a box."""
    top, left, height, width = box
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def keep_inside(pixels: Pixels, mask: Mask) -> Pixels:
    """A copy that is black outside of a mask."""
    return np.where(mask > 0, pixels, pixels.dtype.type(0))


def erase_inside(pixels: Pixels, mask: Mask) -> Pixels:
    """A copy that is black inside of a mask."""
    return np.where(mask > 0, pixels.dtype.type(0), pixels)
