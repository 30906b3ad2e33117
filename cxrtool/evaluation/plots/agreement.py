"""The picture of an agreement: scores against a rater's, and their differences (Bland & Altman 1986)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cxrtool.evaluation.metrics.agreement import LIMITS
from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.imaging.canvas import BLUE, VERMILION, picture

SPREAD = 0.012
"""Equal points are moved apart by up to this share of the scale, so that each can be seen."""


def draw_agreement(path: Path, found: FloatArray, truth: FloatArray, highest: float, name: str) -> None:
    """Draw two panels.

    Args:
        path: The PNG file.
        found: (n,) estimated scores.
        truth: (n,) the rater's.
        highest: The highest score.
        name: Of the score, for the axes.
    """
    # Positions do not depend on a random state: each point is moved by its index.
    turn = np.arange(len(truth)) * 2.399963
    radius = SPREAD * highest * np.sqrt((np.arange(len(truth)) % 16) / 16)
    x, y = truth + radius * np.cos(turn), found + radius * np.sin(turn)
    difference = found - truth
    bias, spread = float(difference.mean()), float(difference.std(ddof=min(1, len(difference) - 1)))
    with picture(path, 9.4, 4.4) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([0, highest], [0, highest], color="0.6", linewidth=1, zorder=0)
        left.scatter(x, y, s=16, color=BLUE, alpha=0.65, linewidths=0)
        left.set(xlabel=f"{name}, rated", ylabel=f"{name}, estimated", xlim=(-0.3, highest + 0.3))
        left.set_ylim(-0.3, highest + 0.3)
        left.set_aspect("equal")
        right.scatter((x + y) / 2, y - x, s=16, color=BLUE, alpha=0.65, linewidths=0)
        right.axhline(bias, color=VERMILION)
        for end in (bias - LIMITS * spread, bias + LIMITS * spread):
            right.axhline(end, color=VERMILION, linestyle="--", linewidth=1)
            right.annotate(f"{end:+.2f}", (highest, end), ha="right", va="bottom", color=VERMILION)
        right.annotate(f"mean {bias:+.2f}", (highest, bias), ha="right", va="bottom", color=VERMILION)
        reach = 1.1 * max(highest / 4, float(np.abs(difference).max()), abs(bias) + LIMITS * spread)
        right.set(xlabel="mean of both", ylabel="estimated - rated", xlim=(-0.3, highest + 0.3), ylim=(-reach, reach))
        right.set_title("dashed: limits of agreement (mean ± 1.96 SD)", fontsize="small")
