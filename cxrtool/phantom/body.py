"""The measures of one body on one day, and its position before the detector.

Lengths are centimetres of an adult: x to the right of the image (the patient's left), y downwards from the apex of the
lungs, z forwards. A child is drawn in the same units, with a child's proportions, as if its image were magnified.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrtool.phantom.fields import Field, Profile, cloud
from cxrtool.phantom.subject import Subject

CHILD = 13
"""Years below which the body is a child's."""


@dataclass(frozen=True)
class Body:
    """Measures of a body.

    Attributes:
        child: 1 for a small child, falling to 0 at the age of 16.
        old: 0 up to the age of 50, 1 at 90.
        width: Half the inner width of the rib cage where it is widest.
        depth: Half its inner depth.
        wall: Thickness of the chest wall at the side, fat included.
        lung: From the apex to the right dome of the diaphragm.
        rise: By how much the right dome is above the left.
        dome: Height of a dome above its edge.
        heart: Half the width of the heart.
        heart_tilt: Radians from level to the heart's long axis.
        knob: Radius of the aortic arch.
        breast: Depth of the breasts, 0 for none.
        bone: Strength of the bones.
        rib_pitch: From one rib to the next at the spine.
        rib_drop: By how much a rib falls from the spine to its front end.
        rib_width: Half the height of a rib.
        arms: How far the arms are lifted from the trunk, 0 to 1.
        stoop: How far the spine bends to a side.
    """

    child: float
    old: float
    width: float
    depth: float
    wall: float
    lung: float
    rise: float
    dome: float
    heart: float
    heart_tilt: float
    knob: float
    breast: float
    bone: float
    rib_pitch: float
    rib_drop: float
    rib_width: float
    arms: float
    stoop: float

    def bend(self, y: Field) -> Field:
        """How far the spine, and the chest with it, lies to the right of the middle at a level, cm."""
        aside: Field = self.stoop * np.sin(y * np.float32(0.16))
        return aside

    def fullness(self, y: Field) -> Field:
        """Half the inner depth of the rib cage at a level, over that of its deepest."""
        share: Field = np.clip(0.62 + 0.055 * y, 0.4, 1.0)
        return share

    @cached_property
    def cage(self) -> Profile:
        """Half the inner width of the rib cage over y."""
        w, c = self.width, self.child
        # A child's cage is a bell, an adult's a barrel that opens quickly below the apex.
        shape = (
            (-3.0, 0.16),
            (-1.2, 0.28),
            (0.0, 0.48),
            (1.2, 0.60),
            (2.6, 0.70),
            (4.6, 0.80 - 0.03 * c),
            (7.5, 0.885 - 0.05 * c),
            (11.5, 0.945 - 0.05 * c),
            (16.0, 0.99 - 0.02 * c),
            (20.0, 1.0 + 0.01 * c),
            (25.0, 0.985 + 0.04 * c),
            (34.0, 0.93 + 0.05 * c),
        )
        return Profile([(y, w * value) for y, value in shape])

    @cached_property
    def outline(self) -> Profile:
        """Half the outer width of neck, shoulders and trunk over y."""
        trunk, c = self.width + self.wall, self.child
        neck = 5.6 + 0.25 * self.wall - 0.5 * c
        shoulder = self.width + 5.2 + 0.45 * self.wall - 1.2 * c
        high = -1.2 + 1.6 * c
        return Profile(
            [
                (-14.0, neck + 2.2 * c),
                (-9.0, neck + 1.2 * c),
                (high - 5.0, neck),
                (high - 3.4, neck + 2.6),
                (high - 1.6, 0.62 * shoulder),
                (high + 0.6, 0.9 * shoulder),
                (high + 3.0, shoulder),
                (7.0, shoulder - 0.1 * (shoulder - trunk)),
                (11.5, trunk + 2.2),
                (16.0, trunk + 0.8),
                (26.0, trunk - 0.2),
                (40.0, trunk + 0.4),
            ]
        )


def draw_body(subject: Subject) -> Body:
    """Draw a body: measures of the patient from the seed `body`, those of the day from the seed `visit`."""
    patient, day = np.random.default_rng([*subject.body, 1]), np.random.default_rng([*subject.visit, 1])
    child = float(np.clip((16 - subject.age) / 12, 0, 1)) if subject.age < CHILD else 0.0
    old = float(np.clip((subject.age - 50) / 40, 0, 1))
    woman = subject.sex == "F" and not child
    lying = subject.view == "AP"
    stout = float(np.clip(patient.normal(0.45 - 0.3 * child, 0.35), 0, 1.5))
    breath = float(np.clip(day.normal(-0.5 if lying else 0.25, 0.55), -1.6, 1.4))
    width = patient.normal(13.2, 0.7) - (0.6 if woman else 0) - 0.5 * child
    return Body(
        child=child,
        old=old,
        width=width,
        depth=patient.normal(8.8, 0.6) + 0.8 * old,
        wall=2.2 + 3.0 * stout + patient.uniform(0, 0.5),
        lung=patient.normal(20.4, 1.1) + 1.5 * breath - 1.9 * child - 0.8 * stout - (0.5 if woman else 0),
        rise=patient.normal(1.0, 0.6) + 0.2 * breath,
        dome=patient.normal(4.3, 0.6) - 0.5 * breath,
        heart=width * (patient.normal(0.455, 0.04) + 0.035 * lying + 0.04 * child + 0.03 * old),
        heart_tilt=patient.normal(0.72, 0.1) + 0.06 * breath - 0.2 * child,
        knob=patient.normal(1.55, 0.2) + 0.65 * old - 0.45 * child,
        breast=float(patient.uniform(0.8, 3.4) + 0.8 * stout) if woman else 0.5 * stout * (1 - child),
        bone=patient.uniform(0.75, 1.2) * (1 - 0.25 * old) * (1 + 0.3 * child),
        rib_pitch=patient.normal(2.42, 0.08) + 0.06 * breath - 0.16 * child,
        rib_drop=patient.normal(9.3, 1.0) - 1.1 * breath - 2.6 * child + 0.8 * old,
        rib_width=patient.normal(0.66, 0.05) - 0.17 * child,
        arms=float(np.clip(day.normal(0.35 + 0.25 * child, 0.3), 0, 1)),
        stoop=patient.normal(0, 0.35),
    )


class Pose:
    """The position of a body before the detector: from pixels to the body's frame, and from the body to pixels.

    Attributes:
        x: Coordinates of the body's frame at every pixel, cm.
        y: The same, downwards.
        scale: Pixels a centimetre.
        turn: Sine of the rotation about the body's long axis: a point moves sideways by `turn` times its z.
        tilt: Sine of the tilt of the beam: a point moves down by `tilt` times its z.
    """

    def __init__(self, subject: Subject, shape: tuple[int, int], body: Body) -> None:
        day = np.random.default_rng([*subject.visit, 2])
        shot = np.random.default_rng([*subject.exposure, 2])
        lying = subject.view == "AP"
        height, width = shape
        span = 29.5 * day.normal(1.0, 0.06) + 0.5 * body.wall - 1.0 + 1.5 * body.child
        # The chest fills the image, so the narrower side counts; a few bodies are tilted and cut off, as in reality.
        self.scale = min(height / span, width / (span * day.uniform(0.9, 1.0)))
        self.turn = float(np.sin(day.normal(0, 0.1 if lying else 0.05)))
        self.tilt = float(np.sin(day.normal(0.12 if lying else 0.0, 0.07)))
        self.lying = lying
        angle = day.normal(0, 0.07 if lying else 0.03) + shot.normal(0, 0.006)
        middle = np.array(
            [day.normal(0, 1.5 if lying else 0.8) + shot.normal(0, 0.15), day.normal(12.0, 1.0) + shot.normal(0, 0.15)]
        )
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._matrix = turned * self.scale
        self._offset = np.array([width / 2, height / 2]) - self._matrix @ middle
        inverse = np.linalg.inv(self._matrix)
        shift = -inverse @ self._offset
        column, row = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        # A small deformation of the whole plane, so that no two bodies have the same shape.
        bend = np.random.default_rng([*subject.body, 3])
        self._warp = [0.22 * cloud(bend, shape, 5) for _ in range(2)]
        self.x: Field = (inverse[0, 0] * column + inverse[0, 1] * row + shift[0]).astype(np.float32) + self._warp[0]
        self.y: Field = (inverse[1, 0] * column + inverse[1, 1] * row + shift[1]).astype(np.float32) + self._warp[1]
        self.shape = shape

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (column, row) of points of the body: (..., 3) as x, y, z, or (..., 2) for points at z = 0."""
        flat = np.array(points[..., :2], dtype=np.float64)
        if points.shape[-1] == 3:
            depth = points[..., 2]
            # Points farther from the detector are magnified more.
            grown = 1 + (depth if self.lying else -depth) / 170
            flat[..., 0] = flat[..., 0] * grown + self.turn * depth
            flat[..., 1] = 12 + (flat[..., 1] - 12) * grown + self.tilt * depth
        pixels = flat @ self._matrix.T + self._offset
        rows = np.clip(pixels[..., 1], 0, self.shape[0] - 1).astype(int)
        columns = np.clip(pixels[..., 0], 0, self.shape[1] - 1).astype(int)
        bend = np.stack([warp[rows, columns] for warp in self._warp], axis=-1)
        shown: NDArray[np.float64] = pixels - bend @ self._matrix.T
        return shown

    def sideways(self, depth: float) -> float:
        """By how much the projection of a point at `depth` is shifted to the right, cm."""
        return self.turn * depth

    def downwards(self, depth: float) -> float:
        """By how much the projection of a point at `depth` is shifted down, cm."""
        return self.tilt * depth


BLEED = 0.71
"""Pixels by which OpenCV's anti-aliased outline extends beyond a polygon."""


def inset(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polygons (..., n, 2) of pixels, made smaller by `BLEED` on every side, which filling them adds."""
    after, before = np.roll(polygons, -1, axis=-2), np.roll(polygons, 1, axis=-2)
    area = (polygons[..., 0] * after[..., 1] - after[..., 0] * polygons[..., 1]).sum(axis=-1)
    way = after - before
    reach = np.sign(area)[..., None] * BLEED / np.maximum(np.sqrt((way * way).sum(axis=-1)), 1e-6)
    smaller: NDArray[np.float64] = polygons + np.stack([-way[..., 1] * reach, way[..., 0] * reach], axis=-1)
    return smaller


def fill(canvas: NDArray[np.uint8], polygon: NDArray[np.float64], value: int) -> None:
    """Fill a polygon of pixels (n, 2) with a smooth edge.

    The smooth edge is a line around the polygon, which makes it wider by `BLEED` on every side; `tube` and `inset`
    compensate for that.
    """
    cv2.fillPoly(canvas, [(polygon * 16).astype(np.int32)], value, cv2.LINE_AA, 4)


def tube(line: NDArray[np.float64], radius: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Outlines to fill (..., 2 n, 2) of tubes around lines (..., n, 2) with a radius (..., n) along them; in pixels."""
    way = np.empty_like(line)
    way[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    way[..., 0, :], way[..., -1, :] = line[..., 1, :] - line[..., 0, :], line[..., -1, :] - line[..., -2, :]
    reach = np.maximum(radius - BLEED, 0.02) / np.maximum(np.sqrt((way * way).sum(axis=-1)), 1e-6)
    across = np.stack([-way[..., 1] * reach, way[..., 0] * reach], axis=-1)
    return np.concatenate([line + across, (line - across)[..., ::-1, :]], axis=-2)
