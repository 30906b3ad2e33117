"""What is drawn and what comes of it: who stands before the detector, and a radiograph with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LABELS = ("normal", "pathological", "covid", "viral", "bacterial")
"""The classes that can be drawn."""

KINDS = {"ground-glass": 60, "consolidation": 120, "interstitial": 180, "nodule": 240}
"""Kinds of lesions, and the grey value by which each stands in a mask of lesions."""


@dataclass(frozen=True)
class Subject:
    """A patient on the day of one radiograph.

    Attributes:
        label: One of `LABELS`.
        extent: Wanted extent of the lesions in the right and in the left lung, each 0 to 4.
        age: Years; under 13 the body of a child is drawn.
        sex: `F` or `M`.
        view: `PA` or `AP`.
        body: Seed of all that stays the same from one radiograph of a patient to the next.
        visit: Seed of what changes with the day: lesions, posture, breath, cables.
        exposure: Seed of what changes with the shot alone: dose, noise, window, a slight shift of the detector.
    """

    label: str
    extent: tuple[int, int]
    age: int
    sex: str
    view: str
    body: tuple[int, ...]
    visit: tuple[int, ...]
    exposure: tuple[int, ...]


@dataclass(frozen=True)
class Drawing:
    """A radiograph and its truth; every array is (height, width) and of the same shape.

    Attributes:
        image: Grey values in [0, 1], float32; air is dark.
        ribless: The same shot of the same body without its ribs.
        right_lung: 0 and 255, uint8: the patient's right lung (on the left of the picture) down to the dome of the
            diaphragm, the part behind the heart included.
        left_lung: The other one.
        heart: 0 and 255, uint8: what heart and great vessels cover.
        lesions: 0, or the value in `KINDS` of the kind that lies there, uint8.
        shares: Share of the right and of the left lung that lesions cover.
        extent: 0 to 4 a lung: 0 for none, else the quarter that the share falls into.
    """

    image: NDArray[np.float32]
    ribless: NDArray[np.float32]
    right_lung: NDArray[np.uint8]
    left_lung: NDArray[np.uint8]
    heart: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    shares: tuple[float, float]
    extent: tuple[int, int]
