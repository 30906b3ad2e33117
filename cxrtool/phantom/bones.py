"""Bones as lengths of rays through compact bone: ribs, clavicles, shoulder blades, arms, spine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrtool.phantom.body import Body, Pose, fill, inset, tube
from cxrtool.phantom.fields import Field, blur
from cxrtool.phantom.subject import Subject

Canvas = NDArray[np.uint8]
Points = NDArray[np.float64]

_FULL = 255
_CIRCLE = np.linspace(0, 2 * np.pi, 24)

_RIB_END = np.array([2.25, 2.42, 2.5, 2.5, 2.48, 2.42, 2.3, 2.12, 1.95, 1.75, 1.35])
"""How far the bone of each rib extends around the chest, radians from the spine."""

_RIB_FALL = np.array([0.42, 0.68, 0.86, 0.97, 1.04, 1.08, 1.08, 1.04, 1.0, 0.95, 0.9])
"""By how much each rib falls, relative to the body's `rib_drop`."""


def draw_ribs(subject: Subject, body: Body, pose: Pose, across: Field) -> Field:
    """Lengths of rays through the bone of the ribs, cm.

    A rib is a tube with a compact wall, so that its borders are brighter than its middle; at the side of the chest,
    where it turns towards the detector, the ray runs through more of it. Posterior and anterior arcs are drawn
    separately, because they add up where they cross.
    """
    patient = np.random.default_rng([*subject.body, 5])
    back, front = np.zeros(pose.shape, np.uint8), np.zeros(pose.shape, np.uint8)
    points, radius = _ribs(body, patient)
    dense = patient.uniform(0.9, 1.0, points.shape[:2])
    dense[:, 0] *= 0.6
    lines, radius = pose.project(points), radius * pose.scale
    turn = np.abs(points[..., 0]).argmax(axis=-1)
    # The groove beneath a rib makes its lower border thin.
    groove = lines + np.stack([np.zeros_like(radius), 0.10 * radius], axis=-1)
    walls, hollows = tube(lines, radius), tube(groove, np.maximum(0.70 * radius, 0.9 * radius - 2.5))
    count = lines.shape[-2]
    for index in np.ndindex(turn.shape):
        middle = int(turn[index])
        for canvas, first, last in ((back, 0, middle + 1), (front, middle, count)):
            if last - first > 2:
                value = _FULL * dense[index]
                for outline, share in ((walls[index], 1.0), (hollows[index], 0.66)):
                    part = np.concatenate([outline[first:last], outline[2 * count - last : 2 * count - first]])
                    fill(canvas, part, int(value * share))
    # The length of a ray through a shell at an angle to it.
    slant = 1 / np.sqrt(1.2 - np.minimum(across, 1.0) ** 2 * 0.9)
    blunt = 0.02 * pose.scale + 0.1
    arcs = blur(back.astype(np.float32), blunt) * (0.40 * slant)
    arcs += blur(front.astype(np.float32), blunt * 1.15) * (0.28 * slant)
    return arcs * np.float32(body.bone / _FULL)


def _ribs(body: Body, patient: np.random.Generator) -> tuple[Points, Points]:
    """Centre lines (2, ribs, n, 3) and radii (2, ribs, n) from the spine to the end of the bone in front, cm."""
    number = np.arange(len(_RIB_END))[:, None]
    side = np.array([-1.0, 1.0])[:, None, None]
    shape = (2, len(_RIB_END), 1)
    start = -0.6 + body.rib_pitch * number - 0.02 * number**2 + patient.normal(0, 0.07, shape)
    fall = (body.rib_drop + patient.normal(0, 0.25, (2, 1, 1))) * _RIB_FALL[:, None]
    angle = 0.12 + (_RIB_END[:, None] + patient.normal(0, 0.04, shape) - 0.12) * np.linspace(0, 1, 34)
    # Up over the transverse process, then down around the chest.
    y = start + fall * (1 - np.cos(angle)) / 2 - 0.55 * np.sin(np.minimum(2 * angle, np.pi)) * (number > 0)
    wide = np.where(number > 0, body.cage(y.astype(np.float32)), 0.41 * body.width)
    deep = body.depth * body.fullness(y)
    # The shell of the cage is a slightly squared oval; the neck of a rib clears the spine.
    x = np.maximum((wide + 0.25) * np.sin(angle) ** 0.86, 1.9 + 0.4 * (angle - 0.12))
    z = -(deep + 0.3) * np.cos(angle) - 0.8
    thick = (
        body.rib_width * (0.86 + 0.22 * (angle / angle[..., -1:]) ** 2) * np.where(number > 0, 1 - 0.012 * number, 0.8)
    )
    # A rib is a flat band: its broad side is visible at the back and front, its edge at the side.
    thick = thick * (1 - 0.55 * np.sin(angle) ** 8)
    return np.stack([side * x + body.bend(y), y, z], axis=-1), thick


def draw_other_bones(subject: Subject, body: Body, pose: Pose) -> Field:
    """Lengths of rays through clavicles, shoulder blades, upper arms, spine and breastbone, cm."""
    patient, day = np.random.default_rng([*subject.body, 6]), np.random.default_rng([*subject.visit, 6])
    long, plates = np.zeros(pose.shape, np.uint8), np.zeros(pose.shape, np.uint8)
    shrug = day.normal(0.2, 0.5) - 0.9 * body.child
    for side in (-1, 1):
        _clavicle(long, body, pose, side, shrug + day.normal(0, 0.15), patient)
        _shoulder(long, plates, body, pose, side, day)
    solid, marks = np.zeros(pose.shape, np.uint8), np.zeros(pose.shape, np.uint8)
    _spine(solid, marks, body, pose)
    blunt = 0.025 * pose.scale + 0.15
    bones = blur(long.astype(np.float32), blunt) * (0.85 / _FULL)
    bones += blur(plates.astype(np.float32), blunt * 1.4) * (0.45 / _FULL)
    bones += blur(solid.astype(np.float32), blunt * 1.3) * (0.6 / _FULL)
    bones += blur(marks.astype(np.float32), blunt * 1.3) * (0.36 / _FULL)
    return bones * np.float32(body.bone)


def _hollow(canvas: Canvas, line: Points, radius: Points, share: float) -> None:
    """Draw a long bone, in pixels: a bright wall around a fainter middle."""
    fill(canvas, tube(line, radius), int(_FULL * share))
    fill(canvas, tube(line, np.maximum(0.70 * radius, 0.9 * radius - 2.5)), int(_FULL * share * 0.68))


def _clavicle(canvas: Canvas, body: Body, pose: Pose, side: int, shrug: float, patient: np.random.Generator) -> None:
    t = np.linspace(0, 1, 26)
    reach = body.width + 2.6
    x = side * (1.9 + (reach - 1.9) * t)
    # An S that rises to the shoulder; the inner half bows forwards.
    y = 2.6 - (2.6 + 1.5 * shrug) * t**0.85 - 0.75 * np.sin(2 * np.pi * t) + patient.normal(0, 0.1)
    z = 7.0 - 6.5 * t + 1.5 * np.sin(2 * np.pi * t)
    rounded = 1 - 0.75 * np.exp(-t / 0.03) - 0.5 * np.exp((t - 1) / 0.03)
    radius = (0.70 - 0.18 * body.child) * (1.2 - 0.45 * np.sin(np.pi * t)) * rounded * pose.scale
    _hollow(canvas, pose.project(np.stack([x, y, z], axis=1)), radius, 0.95)


def _shoulder(long: Canvas, plates: Canvas, body: Body, pose: Pose, side: int, day: np.random.Generator) -> None:
    """Shoulder blade with its border and spine, and the head and shaft of the upper arm."""
    # Arms that are rolled forwards move the scapulae off the lungs; in lying patients they are over the lungs.
    out = body.width - 1.2 + (0.2 if pose.lying else 1.7) * day.uniform(0.5, 1.2) - 0.5 * body.child
    up = -0.3 + 0.5 * body.child
    corners = [(1.8, 1.2), (-3.6, 1.6), (-4.4, 3.2), (-2.6, 8.6), (-1.6, 11.2), (-0.4, 9.6), (1.2, 5.2)]
    blade = _rounded(np.array([(out + x, up + y) for x, y in corners]))
    t = np.linspace(0, 1, 12)
    # Its outer border is thick, its middle very thin.
    border = np.stack([out + 1.5 - 2.8 * t + 0.5 * np.sin(np.pi * t), up + 4.0 + 6.6 * t], axis=1)
    crest = np.stack([out - 3.8 + 7.8 * t, up + 3.0 - 3.9 * t], axis=1)
    head = np.array([out + 4.1, up + 2.0])
    raised = body.child and body.arms > 0.45
    away = np.array([4.0, -9.0]) if raised else np.array([1.0 + 6.0 * body.arms, 17.0])
    shaft = head + away * t[:, None]
    radius = 2.35 - 0.5 * body.child
    ring = head + radius * np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)
    parts = [blade, border, crest, shaft, ring, head + 0.86 * (ring - head)]
    flat = np.concatenate(parts) * np.array([side, 1.0])
    depth = np.concatenate(
        [np.full(len(part), z) for part, z in zip(parts, (-6.5, -6.0, -7.0, -2, -2, -2), strict=True)]
    )
    pixels = pose.project(np.column_stack([flat, depth]))
    blade, border, crest, shaft, ring, inner = np.split(pixels, np.cumsum([len(part) for part in parts])[:-1])
    fill(plates, inset(blade), 105)
    fill(plates, tube(border, 0.30 * pose.scale), 210)
    fill(plates, tube(crest, np.linspace(0.25, 0.5, 12) * pose.scale), 190)
    _hollow(long, shaft, np.maximum(1.9 - 2.4 * t, 1.15) * (0.95 - 0.24 * body.child) * pose.scale, 0.7)
    fill(long, inset(ring), 125)
    fill(long, inset(inner), 105)


def _rounded(points: Points) -> Points:
    """Closed outlines (..., n, d) with their corners cut, twice."""
    for _ in range(2):
        after = np.roll(points, -1, axis=-2)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=-2)
        points = cut.reshape(*points.shape[:-2], -1, points.shape[-1])
    return points


def _spine(solid: Canvas, marks: Canvas, body: Body, pose: Pose) -> None:
    """Vertebrae with bright end plates, pedicles, transverse and spinous processes, discs between them; breastbone."""
    top = [-9.5]
    while top[-1] < 36:
        top.append(top[-1] + (1.45 if top[-1] < -1.5 else 2.05 + 0.028 * top[-1]) - 0.12 * body.child)
    level = np.array(top[:-1])[:, None]
    pitch = np.diff(top)[:, None]
    thoracic = level > -1.5
    wide = np.where(thoracic, 1.5 + 0.016 * level, 1.35) - 0.15 * body.child
    middle = body.bend(level)
    disc = 0.30 + 0.1 * body.child

    def shape(x: Points, y: Points, z: float) -> Points:
        x, y = np.broadcast_arrays(middle + x, level + y)
        return pose.project(np.stack([x, y, np.full_like(x, z)], axis=-1))

    corners = np.array([-1.0, 1.0, 0.9, 1.0, -1.0, -0.9])
    heights = np.array([0.0, 0.0, 0.5, 1.0, 1.0, 0.5])
    boxes = inset(_rounded(shape(wide * corners, disc / 2 + (pitch - disc) * heights, -6.0)))
    ends = np.array([-0.93, 0.0, 0.93]) * wide
    upper = tube(shape(ends, np.full_like(ends, disc / 2 + 0.05), -6.0), 0.11 * pose.scale)
    lower = tube(shape(ends, pitch - disc / 2 - 0.05 + 0 * ends, -6.0), 0.11 * pose.scale)
    turn = (np.cos(_CIRCLE), np.sin(_CIRCLE))
    eyes = [inset(shape(side * 0.66 * wide + 0.24 * turn[0], 0.42 * pitch + 0.36 * turn[1], -7.5)) for side in (-1, 1)]
    thorns = inset(shape(0.25 * turn[0], 0.95 * pitch + 0.6 * turn[1], -10.5))
    arm, rise = np.array([0.0, 1.0]), np.array([0.45, 0.25])
    arms = [
        tube(shape(side * (0.8 * wide + (2.9 - 0.8 * wide) * arm), rise * pitch, -8.5), 0.42 * pose.scale)
        for side in (-1, 1)
    ]
    for index in range(len(level)):
        fill(solid, boxes[index], 150)
        fill(solid, upper[index], 225)
        fill(solid, lower[index], 225)
        if thoracic[index]:
            for side in arms:
                fill(marks, side[index], 110)
        for eye in eyes:
            fill(marks, eye[index], 200)
        fill(marks, thorns[index], 190)
    half = np.array([(2.6, 2.2, 8.0), (1.9, 4.6, 8.5), (1.6, 9.0, 9.0), (1.7, 15.0, 9.5)])
    plate = np.concatenate([half, half[::-1] * np.array([-1.0, 1.0, 1.0])])
    breastbone = np.zeros_like(marks)
    fill(breastbone, inset(pose.project(_rounded(plate))), 110)
    np.maximum(marks, breastbone, out=marks)
