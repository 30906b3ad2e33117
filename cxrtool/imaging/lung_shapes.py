"""How unlike lungs the shape of a mask is, and what Dice that lets expect.

In opaque lungs a network may find half a lung, or leave the chest, and be almost as sure as ever. The shapes of the
outlines that it was fitted on, each in its bounding box, vary in few directions (principal components, as in Cootes et
al. 1995, of cells instead of landmarks). What of a mask lies outside these directions, together with how unsure the
network is, predicts its Dice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from cxrtool.imaging.masks import Mask, bounds

KEY = "shapes"
"""Where the shapes are among the statistics of the images that a network was fitted on."""

SIDE = 16
"""Cells along a side of the bounding box."""

MODES = 4
REACH = 2.0
"""Standard deviations of the outlines by which a mask may go along each mode."""

FEWEST = 20
"""Outlines below which no shape is learnt."""

INTERCEPT, OF_SURENESS, OF_SHAPE = -1.16, 2.25, -0.43
"""Dice as a linear function of sureness and of the part of the shape that is unlike lungs, fitted to 428 masks of 107
radiographs as they are and with drawn haze, by networks that had not seen the patient (r 0.80)."""


def describe(mask: Mask) -> np.ndarray:
    """The covered share of each cell of the bounding box of a mask (H, W): (SIDE²,), zeros where it is empty."""
    box = bounds(mask)
    if box is None:
        return np.zeros(SIDE**2, np.float32)
    top, left, height, width = box
    inside = mask[top : top + height, left : left + width].astype(np.float32) / 255
    return np.asarray(cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel())


def fit(masks: Iterable[Mask]) -> dict[str, Any]:
    """The shapes of lung masks (H, W) for `part.json`: mean, modes and their spread; empty for too few masks."""
    found = np.array([describe(mask) for mask in masks if mask.any()]).reshape(-1, SIDE, SIDE)
    if len(found) < FEWEST:
        return {}
    # A mirrored chest is as likely.
    shapes = np.concatenate([found, found[:, :, ::-1]]).reshape(-1, SIDE**2)
    mean = shapes.mean(0)
    _, spread, modes = np.linalg.svd(shapes - mean, full_matrices=False)
    return {
        "mean": [round(float(value), 4) for value in mean],
        "modes": [[round(float(value), 4) for value in mode] for mode in modes[:MODES]],
        "spread": [round(float(value) / len(shapes) ** 0.5, 4) for value in spread[:MODES]],
    }


def unlike(mask: Mask, shapes: Mapping[str, Any]) -> float:
    """Root mean square of what a mask's cells differ from the nearest shape of lungs: 0 for lungs, up to 1.

    Args:
        mask: (H, W).
        shapes: From `fit`.
    """
    modes, reach = np.asarray(shapes["modes"]), REACH * np.asarray(shapes["spread"])
    rest = describe(mask) - np.asarray(shapes["mean"])
    rest = rest - np.clip(modes @ rest, -reach, reach) @ modes
    return float(np.sqrt(np.mean(rest**2)))


def expected_dice(sureness: float, unlikeness: float) -> float:
    """The Dice to be expected of a mask, in [0, 1], from `masks.sureness` and `unlike`.

    >>> round(expected_dice(0.97, 0.1), 2), round(expected_dice(0.93, 0.35), 2)
    (0.98, 0.78)
    """
    return float(np.clip(INTERCEPT + OF_SURENESS * sureness + OF_SHAPE * unlikeness, 0.0, 1.0))
