"""From attenuation to an image: transmitted light, scatter, quantum noise, logarithm, window, curve, sharpness."""

from __future__ import annotations

import numpy as np

from cxrtool.phantom.body import CHILD, Pose
from cxrtool.phantom.fields import Field, blur
from cxrtool.phantom.sources import Source
from cxrtool.phantom.subject import Subject

SOFT = 0.19
"""Attenuation of a centimetre of soft tissue, and of blood, at about 100 kV with a filter."""

LUNG = 0.26
"""Density of a lung relative to soft tissue."""

BONE = 2.2
"""Attenuation of compact bone in addition to the soft tissue in its position, relative to soft tissue."""


class Exposure:
    """One exposure with all its random values, so that it can be repeated for the same body without ribs.

    Args:
        subject: The patient on this day.
        source: The machine.
        pose: The position of the body.
        reference: Attenuation of the healthy body, (height, width). It determines dose and window, so that lesions do
            not affect the image outside of the lungs.
        lungs: Lung mask, bool of the same shape.
    """

    def __init__(self, subject: Subject, source: Source, pose: Pose, reference: Field, lungs: np.ndarray) -> None:
        shot = np.random.default_rng([*subject.exposure, 10])
        self._source, self._scale = source, pose.scale
        child = subject.age < CHILD
        self._hardness = SOFT * shot.uniform(0.88, 1.12) * (0.92 if child else 1.0)
        self._scatter = source.scatter * shot.uniform(0.6, 1.5) * (0.5 if child else 1.0)
        # The same quanta fall on more pixels where the pixels are smaller.
        self._noise = source.noise * float(np.exp(shot.normal(0, 0.35))) * pose.scale / 21
        # From a separate generator: the number of its draws depends on the size of the image.
        quanta = np.random.default_rng([*subject.exposure, 13])
        self._grain = quanta.standard_normal(pose.shape, dtype=np.float32)
        self._tilted = _ramp(pose.shape, shot)
        self._gamma = source.gamma * float(np.exp(shot.normal(0, 0.1)))
        self._contrast = max(0.0, source.contrast + shot.normal(0, 0.2))
        self._detail = source.detail * shot.uniform(0.5, 1.5)
        self._blur = source.blur * float(np.exp(np.clip(shot.normal(0, 0.4), -1.0, 0.4)))
        film = self._film(reference, noisy=False)
        inside = film[lungs][::7] if lungs.sum() > 700 else film[::3, ::3].ravel()
        clear = float(np.quantile(inside, 0.08))
        margin_y, margin_x = film.shape[0] // 12, film.shape[1] // 12
        bright = float(np.quantile(film[margin_y:-margin_y:3, margin_x:-margin_x:3], shot.uniform(0.97, 0.999)))
        dark = shot.uniform(*source.lung)
        self._low = (clear - dark * bright) / (1 - dark)
        self._range = max(bright - self._low, 0.3)
        self._light = np.exp(-clear)
        self._white = shot.uniform(0.72, 1.0)
        self._black = shot.uniform(0.0, 0.03)

    def take(self, attenuation: Field) -> Field:
        """The image of a body: grey values in [0, 1], float32, air dark.

        Args:
            attenuation: Equivalent centimetres of soft tissue, (height, width).
        """
        film = self._film(attenuation, noisy=True)
        grey = (film - np.float32(self._low)) * np.float32(1 / self._range)
        if self._detail:
            # Fine structure is enhanced; a digital system does this before its curve.
            large = grey - blur(grey, 1.1 * self._scale)
            fine = grey - blur(grey, 0.3 * self._scale)
            grey += np.float32(self._detail) * (np.float32(1.4) * large + fine)
        # The shoulder of the curve: values above the window are compressed, not clipped.
        over = grey > 0.85
        grey[over] = 0.85 + 0.15 * np.tanh((grey[over] - 0.85) * (1 / 0.15))
        np.clip(grey, 0, 1, out=grey)
        if self._contrast:
            smooth = grey * grey * (3 - 2 * grey)
            grey += np.float32(min(self._contrast, 1.0)) * (smooth - grey)
        # exp and log are several times faster than a power.
        grey = np.exp(np.float32(self._gamma) * np.log(np.maximum(grey, 1e-6)))
        grey = grey * np.float32(self._white - self._black) + np.float32(self._black)
        sigma = self._blur * 0.1 * self._scale
        return np.clip(blur(grey, sigma) if sigma > 0.25 else grey, 0, 1).astype(np.float32)

    def _film(self, attenuation: Field, *, noisy: bool) -> Field:
        light = np.exp(attenuation * np.float32(-self._hardness))
        light += np.float32(self._scatter) * blur(light, 4.0 * self._scale) * np.float32(0.6)
        if noisy:
            # Quantum noise: its standard deviation grows with the root of the number of quanta.
            light += self._grain * np.sqrt(light) * np.float32(self._noise * np.sqrt(self._light))
            np.maximum(light, 1e-4, out=light)
        film: Field = self._tilted - np.log(light)
        return film


def _ramp(shape: tuple[int, int], shot: np.random.Generator) -> Field:
    """The heel effect and an oblique beam: one side of the image gets a little less light."""
    column = np.linspace(-1, 1, shape[1], dtype=np.float32) * np.float32(shot.normal(0, 0.06))
    row = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None] * np.float32(shot.normal(0, 0.06))
    return column + row
