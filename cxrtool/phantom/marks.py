"""Letters, text and borders that a source adds to an image."""

from __future__ import annotations

import cv2
import numpy as np

from cxrtool.phantom.fields import Field, blur
from cxrtool.phantom.sources import Source
from cxrtool.phantom.subject import Subject

_WORDS = {"PA": ("PA", "ERECT PA", "UPRIGHT"), "AP": ("AP", "PORTABLE", "MOBILE AP", "SUPINE", "AP SITTING")}


def put_marks(image: Field, subject: Subject, source: Source) -> Field:
    """An image with letters and border, in [0, 1] like the image itself."""
    shot = np.random.default_rng([*subject.exposure, 11])
    image = _letters(image, subject, source, shot)
    return _border(image, source, shot)


def _letters(image: Field, subject: Subject, source: Source, shot: np.random.Generator) -> Field:
    if not source.marker:
        return image
    height, width = image.shape
    side = min(height, width)
    canvas = np.zeros(image.shape, np.uint8)
    right = source.marker == "R"
    x = shot.uniform(0.03, 0.1) if right else shot.uniform(0.86, 0.93)
    position = np.array([x * width, shot.uniform(0.05, 0.2) * height])
    scale, thick = side / 256 * shot.uniform(0.4, 0.6), max(1, round(side / 200))
    font = cv2.FONT_HERSHEY_SIMPLEX
    if source.marker == "dot":
        cv2.circle(canvas, (int(position[0]), int(position[1])), max(2, round(side / 45)), 255, -1, cv2.LINE_AA)
    elif source.marker == "text":
        word = str(shot.choice(_WORDS[subject.view]))
        small, thin = scale * 0.62, max(1, thick // 2)
        length = cv2.getTextSize(word, font, small, thin)[0][0]
        left = min(int(position[0]), width - length - round(0.07 * width))
        line = int(position[1])
        cv2.putText(canvas, "L", (left, line), font, scale, 255, thick, cv2.LINE_AA)
        cv2.putText(canvas, word, (left, line + int(side * 0.05)), font, small, 235, thin, cv2.LINE_AA)
    else:
        corner = (int(position[0]), int(position[1]))
        cv2.putText(canvas, source.marker[0], corner, font, scale, 255, thick, cv2.LINE_AA)
        if source.marker == "L-circle":
            middle = (int(position[0] + scale * 9), int(position[1] - scale * 10))
            cv2.circle(canvas, middle, int(scale * 19), 235, thick, cv2.LINE_AA)
    # A lead letter is placed by hand, at an angle; text is added by the machine, and stays level.
    if source.marker != "text":
        spin = cv2.getRotationMatrix2D((float(position[0]), float(position[1])), shot.normal(0, 9), 1.0)
        cv2.warpAffine(canvas, spin, (width, height), dst=canvas, flags=cv2.INTER_LINEAR)
    lead = blur(canvas.astype(np.float32), 0.35) * np.float32(1 / 255)
    return image + lead * (np.float32(shot.uniform(0.85, 1.0)) - image)


def _border(image: Field, source: Source, shot: np.random.Generator) -> Field:
    height, width = image.shape
    side = min(height, width)
    if source.border in ("black", "white"):
        value = np.float32(0.0 if source.border == "black" else 1.0)
        left, top, right, bottom = (round(side * max(0.0, shot.normal(0.025, 0.02))) for _ in range(4))
        image = image.copy()
        image[:top], image[:, :left] = value, value
        image[height - bottom :], image[:, width - right :] = value, value
    elif source.border == "collimated":
        # The shutters of the collimator are at an angle, and the detector behind them gets no light.
        column = np.linspace(-1, 1, width, dtype=np.float32)
        row = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        slant = np.float32(shot.normal(0, 0.02))
        open_x, open_y = shot.uniform(0.93, 1.06, 2)
        gap = np.minimum(open_x - np.abs(column + slant * row), open_y - np.abs(row - slant * column))
        image = image * np.clip(gap * (side / 3.0) + 0.5, 0.0, 1.0).astype(np.float32)
    elif source.border == "frame":
        image = image.copy()
        wide = max(1, round(side * 0.008))
        value = np.float32(shot.uniform(0.0, 1.0))
        image[:wide], image[-wide:], image[:, :wide], image[:, -wide:] = value, value, value, value
    return image
