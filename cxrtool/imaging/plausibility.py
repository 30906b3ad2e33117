"""A coarse check whether an image is similar to the training images of a model, for a warning beside a prediction.

A softmax is as sure of a hand, a lateral view or a blank image as of a chest. The mean of the standardised thumbnails
of the training images correlates with almost every frontal chest radiograph and with little else. An image that
correlates less than the training images is out of range. This is a warning, not a filter: it cannot separate good
radiographs from poor ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

SIDE = 16
FLAT = 0.01
"""Standard deviation, of values in [0, 1], below which an image is blank."""

MARGIN = 0.1
"""How far below the 1 % quantile of the training images the correlation may be before an image is out of range."""


OUT_OF_RANGE = "out of range"
"""How the warnings about an image start."""

ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted (black and white exchanged)": lambda small: -small,
    "upside down": lambda small: np.rot90(small, 2),
    "rotated to the right by 90 degrees": np.rot90,
    "rotated to the left by 90 degrees": lambda small: np.rot90(small, 3),
}
"""What may be wrong with a radiograph, and the change that undoes it for its thumbnail. A mirrored chest is too like
another to be found."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """An image's coarse pattern: (H, W) of any depth to SIDE² standardised values; zeros for a flat image.

    Of an image (H, W, 3) it is that of the mean of its channels.
    """
    white = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    values = pixels.astype(np.float64) if pixels.ndim == 2 else pixels.mean(2, dtype=np.float64)
    # As floats, because means rounded to 8 bits would differ from those of the same image in 16 bits.
    small = cv2.resize(values / white, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    spread = small.std()
    return (small - small.mean()) / spread if spread > FLAT else np.zeros_like(small)


def fit(thumbnails: np.ndarray) -> dict[str, Any]:
    """Statistics of the training images for `model.json`: the mean pattern and the smallest correlation in range.

    `thumbnails` has one row an image, from `thumbnail`.
    """
    mean = thumbnails.mean(0)
    correlations = thumbnails @ mean / (SIDE**2 * max(float(mean.std()), 1e-9))
    least = float(np.quantile(correlations, 0.01)) - MARGIN if len(thumbnails) else -1.0
    return {"pattern": [round(float(value), 4) for value in mean], "least_correlation": round(least, 4)}


def warn(pixels: np.ndarray, input_statistics: Mapping[str, Any] | None) -> str:
    """A warning about an image (H, W) that is not like the training images; empty for all others.

    `input_statistics` is from `fit`, or None where a model has none.
    """
    if not thumbnail(pixels).any():
        return f"{OUT_OF_RANGE}: the image is blank"
    return unlike(pixels, input_statistics, f"{OUT_OF_RANGE}: unlike the training images")


def unlike(pixels: np.ndarray, input_statistics: Mapping[str, Any] | None, words: str) -> str:
    """`words` and the correlation of an image (H, W) that is not like the training images; empty for all others."""
    if input_statistics is None:
        return ""
    correlation = correlate(thumbnail(pixels), input_statistics)
    return f"{words} (correlation {correlation:.2f})" if correlation < input_statistics["least_correlation"] else ""


def correlate(small: np.ndarray, input_statistics: Mapping[str, Any]) -> float:
    """The correlation of a thumbnail, from `thumbnail`, with the mean of the training images."""
    mean = np.asarray(input_statistics["pattern"])
    return float(small @ mean / (SIDE**2 * max(float(mean.std()), 1e-9)))


def reoriented(small: np.ndarray, input_statistics: Mapping[str, Any]) -> tuple[str, float]:
    """Which of `ORIENTATIONS` makes a thumbnail most like the training images, and its correlation with them then."""
    square = small.reshape(SIDE, SIDE)
    found = {name: correlate(undo(square).ravel(), input_statistics) for name, undo in ORIENTATIONS.items()}
    best = max(found, key=lambda name: found[name])
    return best, found[best]
