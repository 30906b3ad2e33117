"""What a network should make of a picture, brought before it exactly as the picture is: masks, and other pictures."""

from __future__ import annotations

import cv2
import numpy as np

from cxrtool.errors import ImageError
from cxrtool.imaging.fits import Form, fit_geometry
from cxrtool.imaging.resize import Pixels, apply_geometry, resample
from cxrtool.imaging.view import Placed

LEAST_ALIKE = 0.5
"""Correlation below which two pictures are not of one body in one place; pairs of phantoms have above 0.95."""


def check_proportions(target: Pixels, shape: tuple[int, int], what: str) -> None:
    """Check that a target can belong to a picture of (height, width); a pixel of rounding is allowed.

    Raises:
        ImageError: It has other proportions.
    """
    height, width = shape
    if abs(target.shape[0] * width - target.shape[1] * height) > 2 * max(height, width, *target.shape):
        raise ImageError(f"{what} is {target.shape[1]} x {target.shape[0]}, its image {width} x {height}")


def binary(mask: Pixels) -> Pixels:
    """A mask as 0 and 255: a pixel belongs to it above half of its highest value; one of zeros is empty."""
    return np.asarray((mask > mask.max() / 2) * np.uint8(255), np.uint8)


def show_mask(mask: Pixels, placed: Placed, form: Form, dilate: int = 0) -> Pixels:
    """A mask at the form's size, uint8: the share of each pixel that it covers, from 0 to 255.

    Args:
        mask: (h, w) of the picture's proportions.
        placed: The picture as the network sees it.
        form: How it sees it.
        dilate: Side of the square by which the mask is widened at that size; 0 leaves it.

    Raises:
        ImageError: It has other proportions than the picture.
    """
    check_proportions(mask, placed.shape, "its mask")
    shown = _at_its_place(binary(mask), placed, form)
    return np.asarray(cv2.dilate(shown, np.ones((dilate, dilate), np.uint8))) if dilate else shown


def show_target(target: Pixels, placed: Placed, form: Form) -> Pixels:
    """Another picture of the same body at the form's size and polarity, of its own depth.

    A picture without ribs looks much like the one with them: where it looks like its negative, it is turned, as some
    sets keep the one with lungs dark and the other with lungs bright.

    Raises:
        ImageError: It has other proportions than the picture, or does not look like it either way.
    """
    check_proportions(target, placed.shape, "what should become of it")
    shown = _at_its_place(target, placed, form)
    geometry = fit_geometry(*placed.box[2:], form.size, form.fit)
    y, x = (slice(start, start + length) for start, length in zip(geometry.place, geometry.inner, strict=True))
    alike = _likeness(shown[y, x], placed.values[y, x])
    if abs(alike) < LEAST_ALIKE:
        raise ImageError(f"it does not look like its image (correlation {alike:.2f}): it is of somebody else, or moved")
    # The picture is shown as the form wants it, so that looking alike means being of the same polarity.
    canvas = np.full_like(shown, np.iinfo(shown.dtype).max if form.invert else 0)
    canvas[y, x] = ~shown[y, x] if alike < 0 else shown[y, x]
    return canvas


def _likeness(one: Pixels, other: Pixels) -> float:
    """Pearson's correlation of the grey values; 1 where either is flat, as there is nothing to tell them apart by."""
    first, second = (values.astype(np.float64) - values.mean() for values in (one, other))
    norm = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / norm) if norm else 1.0


def levels(placed: Placed, depth: int) -> Pixels:
    """A picture as a network sees it, in whole levels of 8 or 16 bits again."""
    white = (1 << depth) - 1
    return np.rint(placed.values * np.float32(white)).astype(np.uint8 if depth == 8 else np.uint16)


def _at_its_place(target: Pixels, placed: Placed, form: Form) -> Pixels:
    top, left, height, width = placed.box
    whole = resample(target, *placed.shape)
    return apply_geometry(
        whole[top : top + height, left : left + width], fit_geometry(height, width, form.size, form.fit)
    )
