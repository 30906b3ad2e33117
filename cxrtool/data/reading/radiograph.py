"""The result of every reader: one grey image, the tags of its file, and warnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.errors import ImageError

Grey = NDArray[np.unsignedinteger[Any]]

MAX_PIXELS = 100_000_000
"""More than any radiograph has: the largest detectors give about 20 million."""

_SCANS = 20
_NARROW = 16
"""An image that uses less than 1 / 16 of its range gets a warning."""

_BLOCK = 1 << 20
"""Pixels that are stretched at once, so that a large image is not in memory a third time."""


@dataclass
class Radiograph:
    """One radiograph as displayed: upright, black is 0.

    Attributes:
        pixels: (height, width), uint8 or uint16, over the full range of its type.
        tags: `patient_id`, `age`, `sex` and `view` where a DICOM header has them; no other tags are kept.
        warnings: What is doubtful about the image.
        plain: The pixels are the file's own samples, without conversion from colour or to another range.
    """

    pixels: Grey
    tags: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    plain: bool = False


def check_size(width: int, height: int, frames: int, limit: int) -> None:
    """Refuse an image that is too large to decode.

    Raises:
        ImageError: It has more than `limit` pixels.
    """
    if width * height * frames > limit:
        many = f"{frames} frames of " if frames > 1 else ""
        raise ImageError(
            f"its header has {many}{width:,} x {height:,} pixels, more than --max-pixels {limit:,}",
            "increase --max-pixels if it is a radiograph",
        )


def check_scans(width: int, height: int, scans: int, limit: int) -> None:
    """Refuse a JPEG whose passes take too long; a few kilobytes can contain thousands.

    Raises:
        ImageError: It has more than 20 passes over an image of `limit` pixels, or as much work.
    """
    if width * height * scans > _SCANS * limit:
        raise ImageError(f"a progressive JPEG of {scans} scans would take too long to decode")


def to_grey(pixels: Grey, warnings: list[str], *, applied: bool = False) -> Grey:
    """Convert colour and transparency to grey.

    Weights are those of ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), in integer arithmetic that keeps the exact values
    of a grey image that was stored as RGB. Transparent parts are placed over black, the colour of air.

    Args:
        pixels: (height, width), or (height, width, 3 or 4) in OpenCV's order B, G, R, alpha.
        warnings: Warnings are appended here.
        applied: The colours are already multiplied by the opacity.

    Raises:
        ImageError: It has another number of channels, or is fully transparent.
    """
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    if channels not in (3, 4):
        raise ImageError(f"expected a grey, RGB or RGBA image, found {channels} channels")
    full = np.iinfo(pixels.dtype).max
    if _is_coloured(pixels, int(full)):
        warnings.append("colour image, converted to grey")
    if channels == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), pixels.dtype)
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2GRAY), pixels.dtype)
    alpha = cv2.extractChannel(pixels, 3)
    lowest, highest, _, _ = cv2.minMaxLoc(alpha)
    if lowest == full:
        return grey
    if highest == 0:
        raise ImageError("every pixel is transparent")
    warnings.append("transparent parts were placed over black")
    if applied:
        return grey
    product = grey.astype(np.uint32) * alpha
    return ((product + full // 2) // full).astype(pixels.dtype)


def stretch(values: NDArray[Any], inverted: bool, warnings: list[str]) -> Grey:
    """Quantities, such as floating-point or signed samples, as grey of 16 bits.

    Floating-point values from 0 to 1 are brightness: 0 becomes 0, and 1 becomes 65,535. All other values are stretched:
    the lowest becomes 0 and the highest 65,535, with a warning.

    Args:
        values: (height, width), of any real type.
        inverted: The lowest value is white.
        warnings: Warnings are appended here.

    Raises:
        ImageError: It has several channels, or a value that is not finite.
    """
    if values.ndim != 2:
        raise ImageError(f"expected one grey image, found {values.shape[2]} channels of {values.dtype}")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("some of its values are not finite (NaN or infinity)")
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        warnings.append(f"its values, from {low:g} to {high:g}, were stretched to the whole range of grey")
    grey = np.empty(values.shape, np.uint16)
    rows = max(1, _BLOCK // max(values.shape[1], 1))
    for start in range(0, len(values), rows):
        block = (values[start : start + rows].astype(np.float64) - low) / ((high - low) or 1)
        grey[start : start + rows] = np.floor((1 - block if inverted else block) * 65535 + 0.5)
    return grey


def check_contrast(pixels: Grey, warnings: list[str]) -> None:
    """Warn when an image is blank or uses a small part of its range."""
    lowest, highest, _, _ = cv2.minMaxLoc(pixels)
    full = int(np.iinfo(pixels.dtype).max)
    if lowest == highest:
        warnings.append("blank image: every pixel has the same value")
    elif (highest - lowest) * _NARROW < full:
        warnings.append(f"very low contrast: grey values from {lowest:.0f} to {highest:.0f} of {full}")


def _is_coloured(pixels: Grey, full: int) -> bool:
    # A sample is enough: the lines of a screenshot or the tint of a photograph cover more than one pixel in fifty.
    step = max(1, min(pixels.shape[:2]) // 48)
    sample = pixels[::step, ::step]
    blue, green, red = sample[..., 0], sample[..., 1], sample[..., 2]
    spread = np.maximum(np.maximum(blue, green), red) - np.minimum(np.minimum(blue, green), red)
    return int(np.count_nonzero(spread > full // 8)) * 50 > spread.size
