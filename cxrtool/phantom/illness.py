"""The disease of a synthetic patient: the extent of the lesions in each lung at every visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FULL = 4
"""The largest extent of a lung; the largest total of both lungs is twice that."""

SEVERITIES = {"normal-pcr+": (0, 0), "mild": (1, 2), "moderate": (3, 5), "severe": (6, 8)}
"""Severities of covid in increasing order, each with the range of the total extent of both lungs."""


@dataclass(frozen=True)
class Pattern:
    """How a disease spreads.

    Attributes:
        totals: Possible total extents of both lungs at the first visit, with their probabilities.
        one_lung: Share of patients with disease in one lung only, as far as the total fits into one.
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
"""By class; they overlap as diseases do, so that the extent alone does not identify the class."""


def severity_of(label: str, total: int) -> str:
    """The severity of covid by the total extent; empty for other classes, as in COVIDGR.

    >>> severity_of("covid", 0), severity_of("covid", 5), severity_of("viral", 5)
    ('normal-pcr+', 'moderate', '')
    """
    if label != "covid":
        return ""
    return next(name for name, (low, high) in SEVERITIES.items() if low <= total <= high)


def draw_extents(
    generator: np.random.Generator, label: str, severity: str | None, visits: int
) -> list[tuple[int, int]]:
    """The target extent in the right and the left lung at every visit; the worse side stays the same.

    Args:
        generator: The patient's generator of lesions.
        label: A key of `PATTERNS`.
        severity: A key of `SEVERITIES`, for the first visit; None draws the total by the pattern.
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
    # By how much the worse side exceeds the other where both are affected.
    lead = int(generator.choice([-1, 0, 1], p=[0.2, 0.6, 0.2]))
    extents = []
    for _ in range(visits):
        first = _first(total, FULL if alone else lead)
        extents.append((first, total - first) if side == 0 else (total - first, first))
        # Better or worse by the next visit.
        total = int(np.clip(total + generator.integers(-2, 3), low, high))
    return extents


def _first(total: int, lead: int) -> int:
    """The extent of the worse side for a total, with at most `FULL` in each lung.

    >>> [_first(5, lead) for lead in (-1, 0, 1, 4)]
    [2, 3, 4, 4]
    """
    return min(max((total + 1) // 2 + lead, 0, total - FULL), total, FULL)
