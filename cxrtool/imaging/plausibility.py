"""Does a picture look like those a model was trained on? A coarse answer, for a warning beside a prediction.

A softmax is as sure of a hand, a lateral view or a blank sheet as of a chest. The training images' mean thumbnail, each
standardised, correlates with almost every frontal chest radiograph and with little else; what correlates less than any
training image is called out of range. It is a warning, not a gate: it cannot tell a good radiograph from a poor one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

SIDE = 16
FLAT = 0.01
"""Standard deviation, of values in [0, 1], below which a picture shows nothing."""

MARGIN = 0.1
"""How much less than the least typical training image a picture may correlate before it is called out of range."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A picture's coarse pattern: (H, W) of any depth to SIDE² standardised values; zeros for a flat picture."""
    white = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    # As floats, because means rounded to 8 bits would differ from those of the same picture in 16.
    small = cv2.resize(pixels.astype(np.float64) / white, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    spread = small.std()
    return (small - small.mean()) / spread if spread > FLAT else np.zeros_like(small)


def fit(thumbnails: np.ndarray) -> dict[str, Any]:
    """Learn what is usual from training images.

    Args:
        thumbnails: One row an image, as `thumbnail` gives them.

    Returns:
        Plain values for `model.json`: the mean pattern and the least correlation with it that is still usual.
    """
    mean = thumbnails.mean(0)
    correlations = thumbnails @ mean / (SIDE**2 * max(float(mean.std()), 1e-9))
    usual = float(np.quantile(correlations, 0.01)) - MARGIN if len(thumbnails) else -1.0
    return {"pattern": [round(float(value), 4) for value in mean], "least_correlation": round(usual, 4)}


def warn(pixels: np.ndarray, usual: Mapping[str, Any] | None) -> str:
    """A word on a picture (H, W) that is not like the training images; empty when it is.

    Args:
        pixels: The picture as the model is to see it.
        usual: What `fit` returned, or None where a model does not know.
    """
    if not thumbnail(pixels).any():
        return "out of range: the picture is blank"
    return unlike(pixels, usual, "out of range: unlike the training images")


def unlike(pixels: np.ndarray, usual: Mapping[str, Any] | None, words: str) -> str:
    """`words` and how little a picture (H, W) is like the training images, where that is too little; else nothing."""
    if usual is None:
        return ""
    mean = np.asarray(usual["pattern"])
    correlation = float(thumbnail(pixels) @ mean / (SIDE**2 * max(float(mean.std()), 1e-9)))
    return f"{words} (correlation {correlation:.2f})" if correlation < usual["least_correlation"] else ""
