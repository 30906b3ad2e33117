"""The input and the targets of a lung or rib network, and the way back from its output to the image.

Every such network has a `Form` in its description: the side of its input and the changes of the grey values before it.
So any command can run any network on any image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxrtool.errors import ImageError
from cxrtool.imaging.fits import Form, fit_geometry
from cxrtool.imaging.masks import bounds
from cxrtool.imaging.resize import Pixels, apply_geometry, binary, resample

BLACK = 0.03
"""Share of white; a row or column that is nowhere brighter is part of a black border."""

AROUND = 0.06
"""Margin of a crop to the lungs on each side, as a share of the height or width of their box."""

LEAST_CORRELATION = 0.5
"""Correlation below which two images are not of the same exposure; pairs of phantoms have above 0.95."""


@dataclass(frozen=True)
class Placed:
    """An image in the form of a network's input.

    Attributes:
        values: (size, size) float32 in [0, 1].
        box: The part of the image that is used: top, left, height, width.
        shape: Of the whole image: height, width.
    """

    values: np.ndarray
    box: tuple[int, int, int, int]
    shape: tuple[int, int]


def see(pixels: Pixels, form: Form, lungs: Pixels | None = None) -> Placed:
    """Bring an image (H, W), uint8 or uint16, into the form of a network's input.

    `lungs` is their mask (H, W), for a form that is a crop to them; where it is empty, the whole image is used.
    """
    box = (0, 0, pixels.shape[0], pixels.shape[1])
    if form.crop_borders:
        box = content_box(pixels)
    elif form.crop_lungs and lungs is not None:
        box = lung_box(lungs) or box
    top, left, height, width = box
    part = pixels[top : top + height, left : left + width]
    small = apply_geometry(part, fit_geometry(height, width, form.size, form.fit))
    if form.equalise:
        # OpenCV equalises 8 bits, which is enough levels at this size.
        values = cv2.equalizeHist(_to_bytes(small)).astype(np.float32) * np.float32(1 / 255)
    else:
        values = small.astype(np.float32) * np.float32(1 / np.iinfo(small.dtype).max)
    if form.invert:
        values = 1 - values
    return Placed(values, box, (pixels.shape[0], pixels.shape[1]))


def lay_back(output: np.ndarray, placed: Placed, form: Form) -> np.ndarray:
    """A network's output (size, size) float32 at the size of the image (H, W); 0 outside of the part that was used."""
    top, left, height, width = placed.box
    geometry = fit_geometry(height, width, form.size, form.fit)
    y, x = geometry.place
    inner = output[y : y + geometry.inner[0], x : x + geometry.inner[1]]
    back = cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)
    if (height, width) == placed.shape:
        return back
    whole = np.zeros(placed.shape, np.float32)
    whole[top : top + height, left : left + width] = back
    return whole


def layers_of(answer: np.ndarray, placed: Placed, form: Form) -> list[np.ndarray]:
    """Each layer of a network's answer (size, size) or (layers, size, size), as `lay_back` gives it."""
    return [lay_back(layer, placed, form) for layer in answer.reshape(-1, *answer.shape[-2:])]


def lung_box(lungs: Pixels) -> tuple[int, int, int, int] | None:
    """The box around a lung mask with a margin: top, left, height, width; None where the mask is empty."""
    box = bounds(lungs)
    if box is None:
        return None
    top, left, height, width = box
    down, across = round(AROUND * height), round(AROUND * width)
    first, begin = max(0, top - down), max(0, left - across)
    last, end = min(lungs.shape[0], top + height + down), min(lungs.shape[1], left + width + across)
    return first, begin, last - first, end - begin


def content_box(pixels: Pixels) -> tuple[int, int, int, int]:
    """The image without its black borders: top, left, height, width; the whole image where all is black."""
    bright = pixels > BLACK * np.iinfo(pixels.dtype).max
    return bounds(bright.view(np.uint8)) or (0, 0, pixels.shape[0], pixels.shape[1])


def check_proportions(target: Pixels, shape: tuple[int, int], what: str) -> None:
    """Check that a target can belong to an image of (height, width); a pixel of rounding is allowed.

    Raises:
        ImageError: It has other proportions.
    """
    height, width = shape
    if abs(target.shape[0] * width - target.shape[1] * height) > 2 * max(height, width, *target.shape):
        raise ImageError(f"{what} is {target.shape[1]} x {target.shape[0]}, its image {width} x {height}")


def show_mask(mask: Pixels, placed: Placed, form: Form, dilate: int = 0) -> Pixels:
    """A mask at the form's size, uint8: the share of each pixel that it covers, from 0 to 255.

    `dilate` is the side of the square of a dilation at that size; 0 for none.

    Raises:
        ImageError: It has other proportions than the image.
    """
    check_proportions(mask, placed.shape, "its mask")
    shown = _transformed(binary(mask), placed, form)
    return np.asarray(cv2.dilate(shown, np.ones((dilate, dilate), np.uint8))) if dilate else shown


def show_target(target: Pixels, placed: Placed, form: Form) -> Pixels:
    """A target image at the form's size and polarity, in its own depth.

    An image without ribs is very similar to the one with ribs. Where it is similar to the negative, it is inverted,
    because some sets have dark lungs in one and bright lungs in the other.

    Raises:
        ImageError: It has other proportions than the image, or is not similar to it in either polarity.
    """
    check_proportions(target, placed.shape, "its target")
    shown = _transformed(target, placed, form)
    geometry = fit_geometry(*placed.box[2:], form.size, form.fit)
    y, x = (slice(start, start + length) for start, length in zip(geometry.place, geometry.inner, strict=True))
    correlation = _correlation(shown[y, x], placed.values[y, x])
    if abs(correlation) < LEAST_CORRELATION:
        raise ImageError(
            f"it does not match its image (correlation {correlation:.2f}): it is of another patient, or moved"
        )
    # The image has the polarity of the form already, so that a positive correlation means the right polarity.
    canvas = np.full_like(shown, np.iinfo(shown.dtype).max if form.invert else 0)
    canvas[y, x] = ~shown[y, x] if correlation < 0 else shown[y, x]
    return canvas


def _correlation(one: Pixels, other: Pixels) -> float:
    """Pearson's correlation of the grey values; 1 where either image is flat."""
    first, second = (values.astype(np.float64) - values.mean() for values in (one, other))
    norm = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / norm) if norm else 1.0


def levels(placed: Placed, depth: int) -> Pixels:
    """A network's input as integers of 8 or 16 bits."""
    white = (1 << depth) - 1
    return np.rint(placed.values * np.float32(white)).astype(np.uint8 if depth == 8 else np.uint16)


def _transformed(target: Pixels, placed: Placed, form: Form) -> Pixels:
    top, left, height, width = placed.box
    whole = resample(target, *placed.shape)
    return apply_geometry(
        whole[top : top + height, left : left + width], fit_geometry(height, width, form.size, form.fit)
    )


def _to_bytes(pixels: Pixels) -> Pixels:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
