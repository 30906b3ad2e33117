"""Soft tissue and air of the chest as lengths of rays.

A ray runs along z. Every organ is an interval of it with ends in closed form, so that the remaining lung behind the
heart, or below the dome of the diaphragm, follows from the intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxrtool.phantom.body import Body, Pose
from cxrtool.phantom.fields import Field, Generator, Profile, ball, roughness, step
from cxrtool.phantom.subject import Subject


@dataclass(frozen=True)
class Thorax:
    """Lengths of rays in centimetres, all (height, width).

    Attributes:
        tissue: Through soft tissue without the lungs.
        air: Through lung.
        lungs: Right and left lung, 0 to 1, as a reader would outline them: down to the dome, including the part behind
            the heart.
        heart: Through heart and great vessels.
        across: Distance from the midline over half the inner width of the cage; 1 at the ribs.
        hila: Right and left hilum in the body's frame, cm.
    """

    tissue: Field
    air: Field
    lungs: tuple[Field, Field]
    heart: Field
    across: Field
    hila: tuple[tuple[float, float], tuple[float, float]]


def draw_thorax(subject: Subject, body: Body, pose: Pose) -> Thorax:
    """Draw the organs of the chest."""
    patient, day = np.random.default_rng([*subject.body, 4]), np.random.default_rng([*subject.visit, 4])
    x, y = pose.x, pose.y
    edge = 0.7 / pose.scale + 0.05
    middle = x - pose.sideways(-1.0) - body.bend(y)
    cage = body.cage(y)
    across = np.abs(middle) / cage
    oval = np.maximum(1 - across ** np.float32(2.4), 0)
    half = body.depth * np.sqrt(oval) * body.fullness(y)
    heart, silhouette = _heart(body, pose, middle, y, patient)
    # The heart rests on the diaphragm, where there is no lung behind it.
    hidden = heart * (1.4 + 0.8 * step(y - body.lung + 2.6, 3.2))
    inside = half > 0.05
    gas = np.zeros_like(x)
    lungs = []
    for index, side in enumerate((-1, 1)):
        out = middle * np.float32(side)
        lung, above = _lung(body, index, out, y, half, edge, patient, day)
        gas += np.maximum(lung - hidden, 0.0)
        lungs.append(above * step(1 - across, edge / body.width) * inside)
    tissue = _trunk(body, pose, x, y, day) - gas
    tissue += _abdomen(body, middle, y, day)
    tissue += _breasts(body, pose, middle, y, patient)
    tissue -= _airway(body, pose, x, y, patient, edge)
    tissue *= 1 + 0.008 * roughness(patient, x.shape, max(x.shape) / (3.6 * pose.scale), 5, 1.0)
    hila = (pose.sideways(-1.0) - 3.4, 8.9), (pose.sideways(-1.0) + 3.6, 8.0)
    return Thorax(np.maximum(tissue, 0), gas, (lungs[0], lungs[1]), silhouette, across, hila)


def _lung(
    body: Body, index: int, out: Field, y: Field, half: Field, edge: float, patient: Generator, day: Generator
) -> tuple[Field, Field]:
    """Length of rays through one pleural space, and the share of each pixel over the lung above its dome."""
    crest = 5.3 + patient.normal(0, 0.25)
    top = patient.normal(0, 0.35) + 0.10 * (out - crest) ** 2
    apex = np.clip((y - top) * (1 / 5.0), 0, 1)
    apex = np.sqrt(apex * (2 - apex))
    # The pleura follows the spine, and extends farther towards the middle behind the heart.
    inner = (1.75 if index else 1.95) + patient.normal(0, 0.15)
    waist = inner + 0.35 * np.exp(-((y - 1.0) ** 2) / 18)
    medial = step(out - waist + 0.35, 1.2 + edge)
    # The dome: an inverted bowl, highest in the middle and in front of it; the recess behind it is deeper.
    summit = body.lung + (body.rise if index else 0.0) + day.normal(0, 0.25)
    middle_of_dome = (5.6 if index else 6.0) + patient.normal(0, 0.4)
    reach = body.width - middle_of_dome
    sideways = (out - middle_of_dome) / reach
    bowl = np.where(sideways > 0, body.dome * sideways**2 * (0.55 + 0.45 * sideways**2), 1.5 * sideways**2)
    above = summit + bowl - y
    depth = np.sqrt(np.maximum(-above, 0) * (1 / (0.5 * body.dome + 1.0))) * (body.depth * 1.08)
    forward = 1.6
    covered = np.minimum(half, forward + depth) - np.maximum(-half, forward - depth)
    left = 2 * half - np.where(above < 0, np.maximum(covered, 0), 0)
    length = left * apex * medial
    seen = step(above, edge) * step(out - waist, edge) * step(y - top, edge)
    return np.maximum(length, 0), seen


def _heart(body: Body, pose: Pose, middle: Field, y: Field, patient: Generator) -> tuple[Field, Field]:
    """Lengths of rays through heart, great vessels and mediastinum, and the share of each pixel that they cover.

    The silhouette is defined by its two borders: on the patient's left subclavian artery, aortic arch, pulmonary trunk,
    auricle and left ventricle; on the right vena cava and right atrium.
    """
    x = middle - pose.sideways(2.0)
    # Levels are those of a lung 20.5 cm high whose heart rests on the domes.
    level = (y - pose.downwards(2.0)) * np.float32(20.5 / (body.lung + 0.5 * body.rise))
    size, knob = body.heart / 6.0, body.knob
    apex = 18.3 + 2.5 * (body.heart_tilt - 0.72)
    slack = 0.25 * body.old + 0.06 * body.wall + patient.uniform(-0.15, 0.25)
    left = Profile(
        [
            (-8.0, 2.6),
            (-1.0, 2.3 + slack),
            (2.8, 2.35 + slack),
            (4.5, 1.5 + 0.85 * knob),
            (5.9, 1.5 + knob),
            (7.1, 1.5 + 0.9 * knob),
            (8.3, 1.6 + 0.8 * knob + 0.2 * slack),
            (9.4, 3.05 + patient.normal(0, 0.2)),
            (10.6, 3.6 * size),
            (12.2, 4.6 * size),
            (14.2, 6.0 * size),
            (16.2, 7.2 * size),
            (apex, 7.85 * size),
            (apex + 3.0, 7.6 * size),
            (apex + 6.5, 6.2 * size),
            (apex + 11, 3.0),
            (40.0, 2.0),
        ]
    )
    right = Profile(
        [
            (-8.0, 2.6),
            (-1.0, 2.3 + slack),
            (3.0, 2.3 + 0.6 * slack),
            (7.0, 2.55 + 0.4 * slack),
            (9.6, 2.7 + 0.1 * size),
            (11.5, 3.4 * size),
            (13.8, 4.05 * size),
            (16.0, 4.3 * size),
            (18.5, 4.0 * size),
            (20.8, 3.7 * size),
            (24, 3.0),
            (40.0, 2.0),
        ]
    )
    deep = Profile(
        [
            (-8.0, 3.2),
            (0.0, 3.6),
            (5.0, 4.4),
            (9.0, 4.7),
            (13.0, 4.9 * size),
            (17.0, 5.0 * size),
            (22.0, 4.4),
        ]
    )
    to_left, to_right = left(level), right(level)
    offset = (x - 0.5 * (to_left - to_right)) * 2 / (to_left + to_right)
    inside = np.maximum(1 - offset * offset, 0)
    total = 2 * deep(level) * (0.5 * np.sqrt(inside) + 0.5 * inside)
    # The descending aorta runs beside the spine down to the diaphragm.
    wander = 1.15 + 0.45 * knob - 0.05 * (level - 6) * (0.4 - body.old)
    aorta = np.maximum(1 - ((x - wander) * (1 / (0.8 * knob))) ** 2, 0)
    total += 1.4 * np.sqrt(aorta) * step(level - 5.8, 0.8)
    for side in (-1, 1):
        # Roots of the lungs.
        place = (side * (3.3 + 0.25 * (side > 0)), 9.1 - 0.7 * (side > 0))
        total += 2.1 * ball(x, level, place, (1.3, 2.3), 0.25 * side) ** 2
    return total, np.minimum(inside * 12, 1) * step(level - 4.6, 0.2) * step(apex + 2.6 - level, 0.2)


def _trunk(body: Body, pose: Pose, x: Field, y: Field, day: Generator) -> Field:
    """Lengths of rays through the body as a solid: trunk, neck, shoulders, arms."""
    centre = pose.sideways(-1.0)
    outline = body.outline(y)
    share = np.abs(x - centre) / outline
    deep = body.depth + 1.2 + 0.42 * body.wall
    # Flat at the neck and over the shoulders, deep at the chest.
    profile = np.clip(0.66 + 0.045 * y, 0.58, 1.0) * deep
    trunk: Field = 2 * profile * np.sqrt(np.maximum(1 - share ** np.float32(2.6), 0))
    for side in (-1, 1):
        lift = float(np.clip(body.arms + day.normal(0, 0.1), 0, 1))
        start, sweep = body.width + 3.9, 0.02 + 0.5 * lift
        if body.child and lift > 0.45:
            # The arms of small children are held up beside the head.
            sweep = -0.9
            along = step(4.5 - y, 2.0)
            bent = start - 1.5 + sweep * (y - 1.0) * 0.35
        else:
            along = step(y - 1.5, 2.5)
            bent = start + sweep * (y - 1.0)
        u = (x * side - bent) / (3.1 + 0.35 * body.wall - 0.8 * body.child)
        arm = 2 * 3.2 * np.sqrt(np.maximum(1 - u * u, 0)) * along
        trunk = np.maximum(trunk, arm)
    if body.child:
        # The head of a small child is always close to its chest.
        head = ball(x, y, (centre + day.normal(0, 1.0), -11.0 - 2.5 * (1 - body.child)), (6.2, 5.6))
        trunk = np.maximum(trunk, 17 * head)
    # Muscles over the tops of the lungs.
    trunk += 1.9 * step(2.5 - y, 5.0) * (share < 1)
    return trunk


def _abdomen(body: Body, x: Field, y: Field, day: Generator) -> Field:
    """Additional tissue of the abdomen: the liver is positive, gas in stomach and bowel negative."""
    base = body.lung
    extra = 0.8 * step(y - base - 1.0, 3.5) * (1 + 0.25 * step(-x, 6.0))
    if day.random() < 0.72:
        wide, high = day.uniform(1.6, 3.6), day.uniform(0.8, 2.3)
        place = (day.uniform(4.6, 7.6), base + body.rise + 1.6 + high + day.uniform(0, 1.0))
        bubble = ball(x, y, place, (wide, high), day.normal(0, 0.2))
        extra -= day.uniform(1.6, 5.0) * bubble
    for _ in range(day.poisson(1.6)):
        place = (day.normal(3.0, 5.5), base + body.rise + day.uniform(4.5, 12))
        gas = ball(x, y, place, (day.uniform(0.8, 2.4), day.uniform(0.6, 1.6)), day.uniform(-0.8, 0.8))
        extra -= day.uniform(0.8, 3.0) * gas
    return extra


def _breasts(body: Body, pose: Pose, x: Field, y: Field, patient: Generator) -> Field:
    """Breasts or pectoral folds over the lower lungs."""
    if body.breast < 0.3:
        return np.zeros_like(x)
    total = np.zeros_like(x)
    sag = patient.normal(0, 0.5) + 0.4 * body.breast
    for side in (-1, 1):
        centre = (side * patient.normal(7.4, 0.3) + pose.sideways(9.0), 14.2 + sag + patient.normal(0, 0.3))
        form = ball(x, y, centre, (5.4 + 0.35 * body.breast, 4.6 + 0.5 * body.breast), -0.18 * side)
        total += 0.85 * body.breast * form**1.3
    return total


def _airway(body: Body, pose: Pose, x: Field, y: Field, patient: Generator, edge: float) -> Field:
    """Air in trachea and main bronchi."""
    lean = patient.normal(0.1, 0.15)
    x = x - pose.sideways(0.5)
    radius = 0.82 - 0.22 * body.child
    fork = 7.6
    u = (x + lean * y * 0.1) / radius
    pipe = 2 * radius * np.sqrt(np.maximum(1 - u * u, 0)) * step(fork - y, 0.6)
    for side, slope in ((-1, 0.75), (1, 1.15)):
        away = (x + lean * fork * 0.1) * side
        v = (away - slope * (y - fork + 0.4)) / (0.62 * np.hypot(1, slope))
        pipe += 1.1 * np.sqrt(np.maximum(1 - v * v, 0)) * step(y - fork + 0.2, 0.4) * step(3.2 - away, 0.8)
    return pipe
