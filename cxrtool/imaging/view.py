"""The input of a lung or rib network, and the way back from its output to the image.

Every such network has a `Form` in its description: the side of its input and the changes of the grey values before it.
So any command can run any network on any image.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxrtool.imaging.fits import Form, fit_geometry
from cxrtool.imaging.resize import Pixels, apply_geometry

BLACK = 0.03
"""Share of white; a row or column that is nowhere brighter is part of a black border."""


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


def see(pixels: Pixels, form: Form) -> Placed:
    """Bring an image (H, W), uint8 or uint16, into the form of a network's input."""
    box = content_box(pixels) if form.crop_borders else (0, 0, *pixels.shape)
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


def content_box(pixels: Pixels) -> tuple[int, int, int, int]:
    """The image without its black borders: top, left, height, width; the whole image where all is black."""
    bright = pixels > BLACK * np.iinfo(pixels.dtype).max
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        return 0, 0, pixels.shape[0], pixels.shape[1]
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _to_bytes(pixels: Pixels) -> Pixels:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
