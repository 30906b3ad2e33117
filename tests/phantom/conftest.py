"""Subjects to draw, and what has been drawn of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from cxrtool.phantom.body import Body, Pose, draw_body
from cxrtool.phantom.draw import draw
from cxrtool.phantom.sources import SOURCES, Source
from cxrtool.phantom.subject import Drawing, Subject
from cxrtool.phantom.thorax import Thorax, draw_thorax


@dataclass(frozen=True)
class Scene:
    """A body that stands before the detector, its organs laid out."""

    subject: Subject
    body: Body
    pose: Pose
    thorax: Thorax

    @property
    def lungs(self) -> tuple[np.ndarray, np.ndarray]:
        return self.thorax.lungs[0] > 0.5, self.thorax.lungs[1] > 0.5

    @property
    def lung(self) -> np.ndarray:
        return self.lungs[0] | self.lungs[1]

    @property
    def middle(self) -> np.ndarray:
        """Distance to the right of the spine, cm."""
        return self.pose.x - self.pose.sideways(-1.0) - self.body.bend(self.pose.y)


@cache
def _make(seed: int, label: str = "normal", extent: tuple[int, int] = (0, 0), **changes) -> Subject:
    chance = np.random.default_rng(seed)
    age = int(chance.integers(1, 13)) if chance.random() < 0.25 else int(chance.integers(18, 91))
    sex, view = "FM"[chance.integers(2)], ("PA", "AP")[chance.integers(2)]
    return replace(Subject(label, extent, age, sex, view, (seed, 1), (seed, 2), (seed, 3)), **changes)


@cache
def _lay(subject: Subject, shape: tuple[int, int] = (96, 96)) -> Scene:
    body = draw_body(subject)
    pose = Pose(subject, shape, body)
    return Scene(subject, body, pose, draw_thorax(subject, body, pose))


@pytest.fixture(scope="session")
def make() -> Callable[..., Subject]:
    """Makes a subject from a seed: of any age, sex and view, unless it is told."""
    return _make


@pytest.fixture(scope="session")
def lay() -> Callable[..., Scene]:
    """Lays out the organs of a subject, once."""
    return _lay


@pytest.fixture(scope="session")
def plain_source() -> Source:
    """A source that puts nothing onto its pictures."""
    return replace(SOURCES["university"], marker="", border="")


@pytest.fixture(scope="session")
def shoot(plain_source) -> Callable[..., Drawing]:
    """Draws a subject, once."""

    @cache
    def shot(subject: Subject, size: int = 128, source: Source = plain_source) -> Drawing:
        return draw(subject, source, size)

    return shot


@pytest.fixture(scope="session")
def dice() -> Callable[[np.ndarray, np.ndarray], float]:
    """Overlap of two masks."""

    def overlap(first: np.ndarray, second: np.ndarray) -> float:
        first, second = first > 0, second > 0
        return 2 * (first & second).sum() / max(1, first.sum() + second.sum())

    return overlap
