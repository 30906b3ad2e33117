"""Fingerprints of a picture: one that equal pixels share, and one that pictures share which look alike."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from cxrtool.imaging.resize import Pixels

SIDE = 16
"""Cells of the difference hash a row and a column.

The customary 8 are too few here: of the 136,000 pairs among 523 adult radiographs, 26 differ in at most 2 of 64 bits
and only one shows the same picture. With 16 the only pair below 22 of 256 bits is that one.
"""

_OVERSAMPLING = 4


def pixel_sha256(pixels: Pixels) -> str:
    """SHA-256 over type, shape and values of a picture: equal for equal pictures in whatever file they came.

    >>> pixel_sha256(np.zeros((2, 2), np.uint8)) == pixel_sha256(np.zeros((1, 4), np.uint8))
    False
    """
    values = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{pixels.dtype.name} {'x'.join(map(str, pixels.shape))}\n".encode())
    digest.update(values.data)
    return digest.hexdigest()


def dhash(pixels: Pixels) -> str:
    """The difference hash of a picture: 256 bits, each whether a cell is brighter than the one to its left.

    After N. Krawetz, "Kind of Like That" (2013), at 16 x 16 instead of 8 x 8 cells.

    Args:
        pixels: (height, width), uint8 or uint16.

    Returns:
        64 hexadecimal digits.
    """
    # Sampling a few points a cell and averaging these costs a thirtieth of averaging every pixel, for the same picture.
    points = (SIDE + 1) * _OVERSAMPLING, SIDE * _OVERSAMPLING
    sampled = cv2.resize(pixels, points, interpolation=cv2.INTER_LINEAR)
    cells = cv2.resize(sampled, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes().hex()
