"""Images of three channels, as class-inherent generators make them; a radiograph itself has one."""

from __future__ import annotations

import numpy as np

from cxrtool.imaging.resize import Pixels

COLOURS = 3
"""Channels of a twin."""


def as_grey(pixels: Pixels) -> Pixels:
    """An image (H, W) as it is, and the mean of the channels of one of (H, W, 3), for the eye and for thumbnails.

    >>> as_grey(np.array([[[0, 2, 4]]], np.uint8)).tolist()
    [[2]]
    """
    if pixels.ndim == 2:
        return pixels
    return np.asarray(np.rint(pixels.mean(2)), pixels.dtype)


def as_colour(pixels: Pixels) -> Pixels:
    """An image (H, W) repeated in three channels (H, W, 3); one that has them as it is."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], COLOURS, 2)
