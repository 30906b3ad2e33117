"""Lesions of the lungs, by disease: their position, kind and extent."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxrtool.phantom.body import Pose
from cxrtool.phantom.fields import Field, Generator, blur, cloud, roughness, step
from cxrtool.phantom.subject import KINDS, Subject
from cxrtool.phantom.thorax import Thorax


@dataclass(frozen=True)
class Disease:
    """The appearance of a disease in a lung.

    Attributes:
        kinds: Probabilities of ground-glass, consolidation, interstitial and nodule as the leading kind.
        second: Probability that a part of the lesions is of another kind.
        outward: Preference for the pleura, in standard deviations of the noise that places lesions; below 0 the hilum.
        downward: Preference for the bases.
        lobar: Concentration around one point.
        patch: Size of a patch, cm.
        edge: Softness of a patch's border; 1 fades over half a patch.
    """

    kinds: tuple[float, float, float, float]
    second: float
    outward: float
    downward: float
    lobar: float
    patch: float
    edge: float


DISEASES = {
    "covid": Disease((0.66, 0.16, 0.18, 0.0), 0.45, 0.75, 0.55, 0.1, 4.6, 0.75),
    "viral": Disease((0.38, 0.06, 0.56, 0.0), 0.4, -0.35, 0.1, 0.0, 4.2, 0.9),
    "bacterial": Disease((0.2, 0.74, 0.06, 0.0), 0.3, 0.0, 0.25, 1.5, 5.5, 0.5),
    "pathological": Disease((0.12, 0.34, 0.22, 0.32), 0.25, 0.0, 0.15, 0.9, 4.4, 0.6),
}
"""The appearance of every class but normal; they overlap on purpose."""

_QUARTERS = 4
_FAINTEST = 0.01
"""A share of a lung below which it counts as clear."""


@dataclass(frozen=True)
class Lesions:
    """The lesions of both lungs.

    Attributes:
        density: Share of the air along a ray that is replaced, 0 to 1.
        soft: Thickness of additional soft tissue (nodules), cm.
        kinds: The value in `KINDS` of the lesion at a pixel, or 0.
        shares: Share of the right and of the left lung that is covered.
    """

    density: Field
    soft: Field
    kinds: np.ndarray
    shares: tuple[float, float]


def extent_of(share: float) -> int:
    """The extent of a lung's disease, 0 to 4, from the share of it that is covered.

    >>> [extent_of(share) for share in (0.0, 0.1, 0.25, 0.26, 1.0)]
    [0, 1, 1, 2, 4]
    """
    return 0 if share < _FAINTEST else min(_QUARTERS, int(np.ceil(share * _QUARTERS - 1e-6)))


def draw_lesions(subject: Subject, pose: Pose, thorax: Thorax) -> Lesions:
    """Draw lesions for the subject's label and extent."""
    density, soft = np.zeros(pose.shape, np.float32), np.zeros(pose.shape, np.float32)
    kinds = np.zeros(pose.shape, np.uint8)
    shares = [0.0, 0.0]
    if subject.label in DISEASES:
        disease = DISEASES[subject.label]
        day = np.random.default_rng([*subject.visit, 8])
        # A patient's disease has the same appearance in both lungs.
        first = _choose(day, disease.kinds)
        other = _choose(day, disease.kinds) if day.random() < disease.second else first
        # Denser with a larger extent, and by chance.
        force = float(np.clip(day.normal(0.8 + 0.085 * sum(subject.extent), 0.2), 0.4, 1.6))
        for index, extent in enumerate(subject.extent):
            lung = thorax.lungs[index] > 0.5
            if extent and lung.any():
                shares[index] = _fill_lung(
                    disease, (first, other), force, extent, lung, pose, thorax, day, density, soft, kinds
                )
    return Lesions(density, soft, kinds, (shares[0], shares[1]))


def _choose(generator: Generator, chances: tuple[float, ...]) -> str:
    return str(generator.choice(list(KINDS), p=np.array(chances) / sum(chances)))


def _fill_lung(
    disease: Disease,
    names: tuple[str, str],
    force: float,
    extent: int,
    lung: np.ndarray,
    pose: Pose,
    thorax: Thorax,
    day: Generator,
    density: Field,
    soft: Field,
    kinds: np.ndarray,
) -> float:
    """Add the lesions of one lung to `density`, `soft` and `kinds`; return the share of the lung that they cover."""
    # Well inside the quarter of the extent.
    wanted = (extent - 1 + day.uniform(0.2, 0.85)) / _QUARTERS
    if names[0] == "nodule":
        return _nodules(wanted, force, lung, pose, day, soft, kinds)
    field = _preference(disease, lung, pose, thorax, day)
    level = np.quantile(field[lung], 1 - wanted)
    above = (field - np.float32(level)) * (1 / np.float32(field[lung].std() + 1e-6))
    cover = lung & (above > 0)
    weight = step(above - 0.3 * disease.edge, 0.15 + disease.edge * day.uniform(0.5, 1.1))
    # The lung mask has a sharp edge; lesions fade out beyond it.
    fade = blur(lung.astype(np.float32), 0.4 * pose.scale)
    mixed = names[0] != names[1]
    pick = step(cloud(day, pose.shape, _cells(pose, 7)) - 0.4, 0.6) if mixed else np.zeros(pose.shape, np.float32)
    for name, here in ((names[0], 1 - pick), (names[1], pick)):
        if name == "nodule":
            name = "consolidation"
        density += weight * _texture(name, force, pose, day) * here * fade
        kinds[cover & (here > 0.5)] = KINDS[name]
    return float(cover.sum() / lung.sum())


def _preference(disease: Disease, lung: np.ndarray, pose: Pose, thorax: Thorax, day: Generator) -> Field:
    """Where lesions are likely: noise of the size of a patch, increased towards pleura, base or one point."""
    field = roughness(day, pose.shape, _cells(pose, disease.patch * day.uniform(0.75, 1.4)), 3, 0.55)
    rows = np.flatnonzero(lung.any(axis=1))
    low = (pose.y - pose.y[rows[0]].mean()) / (pose.y[rows[-1]].mean() - pose.y[rows[0]].mean())
    field += np.float32(day.normal(disease.outward, 0.35)) * 2.6 * (thorax.across - 0.55)
    field += np.float32(day.normal(disease.downward, 0.35)) * 2.6 * (low - 0.5)
    if disease.lobar:
        row, column = _random_position(lung, day)
        away = (pose.x - pose.x[row, column]) ** 2 + 0.7 * (pose.y - pose.y[row, column]) ** 2
        field -= disease.lobar * np.float32(day.uniform(0.6, 1.3)) * np.sqrt(away) * 0.28
    return field


def _random_position(lung: np.ndarray, day: Generator) -> tuple[int, int]:
    """Row and column of a uniformly random pixel of a lung; it moves with a lung that is shifted or enlarged."""
    down, across = day.random(2)
    below = np.cumsum(lung.sum(axis=1))
    row = int(np.searchsorted(below, down * below[-1], side="right"))
    columns = np.flatnonzero(lung[row])
    return row, int(columns[int(across * len(columns))])


def _cells(pose: Pose, size: float) -> float:
    """Cells of `size` cm along the longer side of the image."""
    return max(pose.shape) / (pose.scale * size)


def _texture(name: str, force: float, pose: Pose, day: Generator) -> Field:
    """Share of the air that a kind of lesion replaces."""
    if name == "ground-glass":
        haze: Field = force * 0.36 * np.clip(1 + 0.35 * roughness(day, pose.shape, _cells(pose, 1.6), 2), 0.2, 2)
        return haze
    if name == "consolidation":
        solid: Field = 0.62 * np.clip(1 + 0.22 * roughness(day, pose.shape, _cells(pose, 2.2), 2), 0.3, 1.6)
        return min(force, 1.15) * solid
    # Reticular: the zero lines of noise form a net.
    net = np.exp(-np.abs(cloud(day, pose.shape, _cells(pose, 0.45))) * 3.5)
    net += 0.7 * np.exp(-np.abs(cloud(day, pose.shape, _cells(pose, 0.85))) * 5)
    return force * 0.30 * (0.4 + 0.75 * net)


def _nodules(
    wanted: float, force: float, lung: np.ndarray, pose: Pose, day: Generator, soft: Field, kinds: np.ndarray
) -> float:
    """Round foci until the wanted share is covered."""
    canvas = np.zeros(pose.shape, np.uint8)
    typical = day.uniform(0.45, 1.3)
    for _ in range(60):
        row, column = _random_position(lung, day)
        radius = float(np.clip(day.normal(typical, 0.3), 0.3, 2.2)) * pose.scale
        disc = np.zeros(pose.shape, np.float32)
        grow = day.uniform(0.85, 1.2)
        axes = (max(1.0, radius * grow), max(1.0, radius / grow))
        turned = float(day.uniform(0, 180))
        where = (int(column), int(row))
        cv2.ellipse(disc, (where, (2 * axes[0], 2 * axes[1]), turned), 1.0, -1, cv2.LINE_AA)
        # Thickest in the middle, like a sphere.
        soft += blur(disc, radius * 0.35) * np.float32(force * 1.25 * radius / pose.scale)
        canvas[disc > 0.5] = 1
        if (canvas[lung] > 0).mean() >= min(wanted, 0.22):
            break
    cover = lung & (canvas > 0)
    kinds[cover] = KINDS["nodule"]
    return float(cover.sum() / lung.sum())
