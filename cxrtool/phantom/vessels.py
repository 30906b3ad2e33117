"""Vessels of the lungs: trees that start at the hila, branch and become thinner."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.phantom.body import Body, Pose
from cxrtool.phantom.fields import Field, blur
from cxrtool.phantom.subject import Subject

LEVELS = 8
"""Generations of branches from the hilum outwards."""

_PIECES = 5
"""Straight pieces of one branch, each in a slightly different direction."""

_BLOOD = 250 / 0.72
"""Grey values on the canvas for one centimetre of blood."""


def draw_vessels(subject: Subject, body: Body, pose: Pose, hila: tuple[tuple[float, float], ...]) -> Field:
    """Lengths of rays through blood in the vessels of both lungs, cm; the caller limits them to the lungs."""
    patient = np.random.default_rng([*subject.body, 7])
    coarse, fine = np.zeros(pose.shape, np.uint8), np.zeros(pose.shape, np.uint8)
    full = 1.0 + (0.12 if pose.lying else 0.0)
    for side, hilum in zip((-1, 1), hila, strict=True):
        generations = _tree(side, hilum, body, patient)
        for points, radius in reversed(generations):
            width = 2 * radius * pose.scale * full
            canvas = coarse if radius > 0.16 else fine
            pixels = np.round(pose.project(points) * 8).astype(np.int32)
            shade = min(255.0, 2 * radius * _BLOOD)
            # A line thinner than a pixel is drawn one pixel wide and fainter.
            value = int(shade * min(1.0, width))
            if value:
                cv2.polylines(canvas, list(pixels), False, value, max(1, round(width)), cv2.LINE_AA, 3)
    soft = 0.015 * pose.scale + 0.1
    return (blur(coarse.astype(np.float32), soft * 1.5) + blur(fine.astype(np.float32), soft)) * np.float32(1 / _BLOOD)


def _tree(
    side: int, hilum: tuple[float, float], body: Body, generator: np.random.Generator
) -> list[tuple[NDArray[np.float64], float]]:
    """Branches by generation: points (branches, pieces + 1, 2) in cm, and a radius in cm."""
    count = 12
    # A fan from up and inwards to down and inwards; the lower lobes have the larger share.
    angle = np.linspace(-1.35, 1.55, count) + generator.normal(0, 0.1, count)
    place = np.array(hilum) + generator.normal(0, 0.35, (count, 2)) + np.stack([0 * angle, 1.3 * np.sin(angle)], axis=1)
    radius, reach = 0.36 - 0.05 * body.child, 2.3
    vertical = body.lung / 20.5
    result = []
    for level in range(LEVELS):
        length = reach * generator.uniform(0.7, 1.25, len(angle)) * (0.83**level)
        points = [place]
        bend = generator.normal(0, 0.10, len(angle))
        for _ in range(_PIECES):
            angle = angle + bend + generator.normal(0, 0.09, len(angle))
            move = np.stack([side * np.cos(angle), vertical * np.sin(angle)], axis=1) * (length / _PIECES)[:, None]
            place = place + move
            points.append(place)
        result.append((np.stack(points, axis=1), radius))
        # Two daughters: one continues, the other branches off at a wider angle; both turn away from the hilum.
        outward = np.arctan2((place[:, 1] - hilum[1]) / vertical, side * (place[:, 0] - hilum[0]))
        angle = angle + 0.25 * np.angle(np.exp(1j * (outward - angle)))
        sign = generator.choice([-1.0, 1.0], len(angle))
        spread = generator.uniform(0.25, 0.6, len(angle))
        angle = np.concatenate([angle - sign * 0.35 * spread, angle + sign * spread])
        place = np.concatenate([place, place])
        if level >= 5:
            # Some of the finest branches are omitted: there are many, and they are hardly visible.
            keep = generator.permutation(len(angle))[: int(len(angle) * 0.62)]
            angle, place = angle[keep], place[keep]
        radius *= 0.73
    return result
