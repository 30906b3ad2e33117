"""How ill a drawn patient is: the extent of the lesions in each lung, from visit to visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FULL = 4
"""The largest extent of a lung; both together reach twice that."""

SEVERITIES = {"normal-pcr+": (0, 0), "mild": (1, 2), "moderate": (3, 5), "severe": (6, 8)}
"""Severity of covid, from the least to the worst, and the totals of both lungs' extents that it stands for."""


@dataclass(frozen=True)
class Pattern:
    """How a disease spreads.

    Attributes:
        totals: Total extents of both lungs that a first visit may show, and how often each is drawn.
        one_lung: Share of patients of whom one lung alone is ill, as far as the total fits into one.
    """

    totals: Mapping[int, float]
    one_lung: float


PATTERNS = {
    "normal": Pattern({0: 1.0}, 0.0),
    "pathological": Pattern({1: 0.2, 2: 0.35, 3: 0.3, 4: 0.15}, 0.75),
    "covid": Pattern(dict.fromkeys(range(2 * FULL + 1), 1 / (2 * FULL + 1)), 0.1),
    "viral": Pattern({1: 0.1, 2: 0.2, 3: 0.25, 4: 0.2, 5: 0.15, 6: 0.1}, 0.2),
    "bacterial": Pattern({1: 0.15, 2: 0.25, 3: 0.25, 4: 0.2, 5: 0.1, 6: 0.05}, 0.8),
}
"""By class; they overlap on purpose, as diseases do: the spread alone does not tell one from another."""


def severity_of(label: str, total: int) -> str:
    """The severity of covid by the total extent; other classes have none, as in COVIDGR.

    >>> severity_of("covid", 0), severity_of("covid", 5), severity_of("viral", 5)
    ('normal-pcr+', 'moderate', '')
    """
    if label != "covid":
        return ""
    return next(name for name, (low, high) in SEVERITIES.items() if low <= total <= high)


def draw_extents(
    generator: np.random.Generator, label: str, severity: str | None, visits: int
) -> list[tuple[int, int]]:
    """The wanted extent in the right and the left lung at every visit; what is ill once stays on its side.

    Args:
        generator: The patient's own, for lesions alone.
        label: A key of `PATTERNS`.
        severity: That of the first visit, a key of `SEVERITIES`; None draws the total by the pattern.
        visits: At least 1.
    """
    pattern = PATTERNS[label]
    low, high = min(pattern.totals), max(pattern.totals)
    if severity is None:
        total = int(generator.choice(list(pattern.totals), p=list(pattern.totals.values())))
    else:
        least, most = SEVERITIES[severity]
        total = int(generator.integers(least, most + 1))
    alone = generator.random() < pattern.one_lung
    side = int(generator.integers(2))
    # By how much the worse side leads where both are ill.
    lead = int(generator.choice([-1, 0, 1], p=[0.2, 0.6, 0.2]))
    extents = []
    for _ in range(visits):
        first = _first(total, FULL if alone else lead)
        extents.append((first, total - first) if side == 0 else (total - first, first))
        # Better or worse by the next visit.
        total = int(np.clip(total + generator.integers(-2, 3), low, high))
    return extents


def _first(total: int, lead: int) -> int:
    """What of the total falls to the side that leads, when neither lung may have more than it holds.

    >>> [_first(5, lead) for lead in (-1, 0, 1, 4)]
    [2, 3, 4, 4]
    """
    return min(max((total + 1) // 2 + lead, 0, total - FULL), total, FULL)
