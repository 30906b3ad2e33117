"""Devices on a patient or in the beam: electrodes with cables, tubes, a pacemaker."""

from __future__ import annotations

import cv2
import numpy as np

from cxrtool.phantom.body import Pose, fill, inset
from cxrtool.phantom.fields import Field, blur
from cxrtool.phantom.subject import Subject


def draw_devices(subject: Subject, pose: Pose) -> Field | None:
    """Attenuation of the devices, 0 to about 1; None without devices.

    They depend on the day's seed, the view and the age alone, and never on the class.
    """
    day = np.random.default_rng([*subject.visit, 9])
    canvas = np.zeros(pose.shape, np.uint8)
    if day.random() < (0.3 if subject.view == "AP" else 0.05):
        for _ in range(day.integers(1, 4)):
            _lead(canvas, pose, day)
    if subject.age > 16 and day.random() < (0.22 if subject.view == "AP" else 0.02):
        _line(canvas, pose, day)
    if subject.age > 50 and day.random() < 0.05:
        _pacemaker(canvas, pose, day)
    if not canvas.any():
        return None
    return blur(canvas.astype(np.float32), 0.4 + 0.01 * pose.scale) * np.float32(0.9 / 255)


def _curve(points: np.ndarray, pose: Pose) -> np.ndarray:
    """A smooth line in pixels through a few points (n, 2) of the body, by repeated corner cutting."""
    for _ in range(4):
        cut = np.stack([0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]], axis=1)
        points = np.concatenate([points[:1], cut.reshape(-1, 2), points[-1:]])
    return np.round(pose.project(points) * 8).astype(np.int32)


def _lead(canvas: np.ndarray, pose: Pose, day: np.random.Generator) -> None:
    place = np.array([day.normal(0, 8.0), day.uniform(1, 20)])
    out = np.array([np.sign(place[0]) * day.uniform(15, 24), place[1] + day.normal(4, 8)])
    bend = place + (out - place) * 0.5 + day.normal(0, 3.5, 2)
    wire = _curve(np.stack([place, bend, out]), pose)
    cv2.polylines(canvas, [wire], False, int(day.uniform(90, 170)), max(1, round(0.11 * pose.scale)), cv2.LINE_AA, 3)
    angle = np.linspace(0, 2 * np.pi, 24)
    ring = place + 0.75 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    fill(canvas, inset(pose.project(ring)), 120)
    fill(canvas, inset(pose.project(place + 0.6 * (ring - place))), int(day.uniform(30, 200)))


def _line(canvas: np.ndarray, pose: Pose, day: np.random.Generator) -> None:
    """A tube in the windpipe or a line in the great vein."""
    if day.random() < 0.5:
        points = np.array([(day.normal(0, 1.5), -9.0), (0.1, -2.0), (0.0, 2.0), (0.0, day.uniform(3.5, 6.0))])
        width, value = 0.14, 110
    else:
        points = np.array([(-4.5, -6.0), (-3.4, 0.0), (-2.4, 4.0), (-2.2, day.uniform(8, 11))])
        width, value = 0.10, 120
    cv2.polylines(canvas, [_curve(points, pose)], False, value, max(1, round(width * 2 * pose.scale)), cv2.LINE_AA, 3)


def _pacemaker(canvas: np.ndarray, pose: Pose, day: np.random.Generator) -> None:
    middle = np.array([day.normal(9.0, 0.8), day.normal(4.0, 0.6)])
    angle = np.linspace(0, 2 * np.pi, 40)
    cosine, sine = np.cos(angle), np.sin(angle)
    form = np.stack([2.2 * np.sign(cosine) * np.abs(cosine) ** 0.7, 1.9 * np.sign(sine) * np.abs(sine) ** 0.7], axis=1)
    lead = _curve(np.array([middle, (4.5, 0.5), (-1.8, 3.0), (-2.0, 9.0), (3.0, 16.0)]), pose)
    cv2.polylines(canvas, [lead], False, 150, max(1, round(0.12 * pose.scale)), cv2.LINE_AA, 3)
    fill(canvas, inset(pose.project(middle + form)), 235)
