"""Input and output of a drawing: a patient on the day of a radiograph, and the radiograph with its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LABELS = ("normal", "pathological", "covid", "viral", "bacterial")
"""The classes that can be drawn."""

KINDS = {"ground-glass": 60, "consolidation": 120, "interstitial": 180, "nodule": 240}
"""Kinds of lesions, with their grey values in a mask of lesions."""


@dataclass(frozen=True)
class Subject:
    """A patient on the day of one radiograph.

    Attributes:
        label: One of `LABELS`.
        extent: Target extent of the lesions in the right and in the left lung, each 0 to 4.
        age: Years; under 13 the body of a child is drawn.
        sex: `F` or `M`.
        view: `PA` or `AP`.
        body: Seed of everything that is the same in all radiographs of a patient.
        visit: Seed of everything that changes with the day: lesions, posture, breath, cables.
        exposure: Seed of everything that changes with the exposure: dose, noise, window, a small shift of the detector.
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
    """A radiograph and its ground truth; every array is (height, width) and of the same shape.

    Attributes:
        image: Grey values in [0, 1], float32; air is dark.
        ribless: The same exposure of the same body without ribs.
        right_lung: 0 and 255, uint8: the patient's right lung (on the left of the image) down to the dome of the
            diaphragm, including the part behind the heart.
        left_lung: Likewise.
        heart: 0 and 255, uint8: heart and great vessels.
        lesions: 0, or the value in `KINDS` of the lesion, uint8.
        shares: Share of the right and of the left lung that lesions cover.
        extent: 0 to 4 for each lung: 0 for none, else the quarter of the share.
    """

    image: NDArray[np.float32]
    ribless: NDArray[np.float32]
    right_lung: NDArray[np.uint8]
    left_lung: NDArray[np.uint8]
    heart: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    shares: tuple[float, float]
    extent: tuple[int, int]

    @property
    def opacities(self) -> NDArray[np.uint8]:
        """0 and 255: lesions of every kind."""
        return (self.lesions > 0).view(np.uint8) * np.uint8(255)
