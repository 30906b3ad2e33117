"""Which of several trained combinations a fold keeps. Validation images alone decide, by one of two rules.

Where a search is over hyperparameters or networks in general: the highest accuracy. Where it is over the kernels of one
kind of network, accuracy and cost together, as Duran-Lopez et al. 2020 name them for their search ("prioritizing
accuracy and computational complexity") without saying how: of all within one standard error of the highest accuracy,
the one with the fewest multiply-accumulates (the rule of one standard error of Breiman et al. 1984, "Classification and
regression trees", section 3.4.3). On a few dozen images that is a generous margin, and as it should be: such images
cannot tell these networks apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCURATE = "the highest validation accuracy, then the lower loss, then fewer parameters"
THRIFTY = (
    "of those within one standard error, sqrt(p (1 - p) / n), of the highest validation accuracy, the fewest MACs, "
    "then the higher accuracy, then the lower loss"
)


@dataclass(frozen=True)
class Candidate:
    """One combination on one fold, trained.

    Attributes:
        place: Among the combinations, from 0.
        path: Its folder.
        score: What its `score.json` says; `reason` is not empty where the training broke down.
    """

    place: int
    path: Path
    score: dict[str, Any]

    @property
    def rank(self) -> tuple[float, ...]:
        """Smaller is better: most right on validation, then the lower loss, then fewer parameters, then the earlier."""
        if self.score["reason"]:
            return (1.0, 0.0, 0.0, self.place)
        return (
            -self.score["validation_accuracy"], self.score["validation_loss"], self.score["parameters"], self.place,
        )  # fmt: skip

    @property
    def cost(self) -> tuple[float, ...]:
        """Smaller is better among those that are accurate enough."""
        if self.score["reason"]:
            return (math.inf, 0.0, 0.0, self.place)
        return (self.score["macs"], -self.score["validation_accuracy"], self.score["validation_loss"], self.place)


def choose(candidates: Sequence[Candidate], *, thrifty: bool) -> Candidate:
    """The one that a fold keeps.

    Args:
        candidates: At least one; those that broke down are chosen only where all did.
        thrifty: By `THRIFTY`, else by `ACCURATE`.
    """
    best = min(candidates, key=lambda candidate: candidate.rank)
    if not thrifty or best.score["reason"]:
        return best
    accuracy, images = best.score["validation_accuracy"], best.score["images"]
    least = accuracy - math.sqrt(accuracy * (1 - accuracy) / images)
    enough = [c for c in candidates if not c.score["reason"] and c.score["validation_accuracy"] >= least]
    return min(enough, key=lambda candidate: candidate.cost)


def hopeful(candidates: Sequence[Candidate], *, thrifty: bool) -> list[Candidate]:
    """Those that may yet be chosen, whatever else comes: the weights of all others can go.

    By `THRIFTY` that is whoever no other beats in cost without being less accurate.
    """
    if not thrifty:
        return [choose(candidates, thrifty=False)]
    found: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.cost):
        if not found or candidate.rank[0] < min(other.rank[0] for other in found):
            found.append(candidate)
    return found
