"""Resampling of images and masks.

Shrinking averages over areas (OpenCV's INTER_AREA); enlarging is bilinear, because cubic interpolation rings at
burned-in letters. Where one axis shrinks and the other grows, both are bilinear while the shrinking is below a factor
of two, so that no pixel is skipped; above, the shrinking axis is averaged first. Masks use the same geometry with the
nearest neighbour.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.imaging.fits import NATIVE, Geometry, fit_geometry

Pixels = NDArray[Any]


def apply_geometry(pixels: Pixels, geometry: Geometry, *, mask: bool = False) -> Pixels:
    """Crop, resample and place an image; the result is (size, size) of the same type.

    Args:
        pixels: (height, width) or (height, width, 3), the shape for which the geometry was computed.
        geometry: From `fit_geometry`.
        mask: Use the nearest neighbour.
    """
    top, left, height, width = geometry.box
    inner = resample(pixels[top : top + height, left : left + width], *geometry.inner, mask=mask)
    if inner.shape[:2] == (geometry.size, geometry.size):
        return inner
    canvas = np.zeros((geometry.size, geometry.size, *pixels.shape[2:]), pixels.dtype)
    top, left = geometry.place
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def resample(pixels: Pixels, height: int, width: int, *, mask: bool = False) -> Pixels:
    """Resample an image (h, w) or (h, w, 3) to (height, width)."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    if mask:
        return _resize(pixels, height, width, cv2.INTER_NEAREST_EXACT)
    shrinking = pixels.shape[0] / height, pixels.shape[1] / width
    if min(shrinking) >= 1:
        return _resize(pixels, height, width, cv2.INTER_AREA)
    if max(shrinking) >= 2:
        low = min(height, pixels.shape[0]), min(width, pixels.shape[1])
        pixels = _resize(pixels, *low, cv2.INTER_AREA)
    return _resize(pixels, height, width, cv2.INTER_LINEAR)


def prepare_pixels(pixels: Pixels, size: int | str, fit: str) -> Pixels:
    """Bring an image to size, as `prepare` does and `predict` repeats on a raw image.

    Args:
        pixels: (height, width) or (height, width, 3), uint8 or uint16.
        size: Side of the square, or `native` for the image as it is.
        fit: `squash`, `pad` or `crop`; see `FITS`.

    Returns:
        (size, size), or (height, width) for `native`, of the same type and channels.
    """
    if size == NATIVE:
        return pixels
    height, width = pixels.shape[:2]
    return apply_geometry(pixels, fit_geometry(height, width, int(size), fit))


def prepare_mask(mask: Pixels, height: int, width: int, size: int | str, fit: str) -> NDArray[np.uint8]:
    """Bring the mask of an image of (height, width) to size, with the same geometry; its values are 0 and 255."""
    whole = resample(binary(mask), height, width, mask=True)
    if size == NATIVE:
        return whole
    return apply_geometry(whole, fit_geometry(height, width, int(size), fit), mask=True)


def binary(mask: Pixels) -> Pixels:
    """A mask as 0 and 255; a mask of zeros is empty.

    A pixel is inside above half of the highest value, so that masks of 0 and 1 and masks with soft edges are read
    correctly.
    """
    return np.asarray((mask > mask.max() / 2) * np.uint8(255), np.uint8)


def _resize(pixels: Pixels, height: int, width: int, how: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=how))
