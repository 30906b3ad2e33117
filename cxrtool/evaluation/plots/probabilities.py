"""Figures of predictions without labels: how often each probability was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxrtool.evaluation.metrics.confusion import FloatArray
from cxrtool.imaging.canvas import BLUE, GREY, VERMILION, picture, shorten

BINS = np.linspace(0.0, 1.0, 21)
MOST = 7
"""Classes with a panel."""

COLUMNS, WIDTH, HEIGHT = 4, 2.95, 2.4


def draw_probabilities(
    classes: Sequence[str], probabilities: FloatArray, known: FloatArray | None, shown: Sequence[int], path: Path
) -> None:
    """Draw histograms: a panel for each class of `shown`, and one for the probability of the predicted class.

    Args:
        classes: K names.
        probabilities: (n, K).
        known: (m, K) of the test images of the run, as an outline in the last panel, or None.
        shown: Indices of classes.
        path: The PNG to write.
    """
    panels: list[tuple[str, FloatArray, FloatArray | None, str]]
    panels = [(f"Probability of {shorten(classes[k])}", probabilities[:, k], None, BLUE) for k in shown[:MOST]]
    certain = None if known is None else known.max(1)
    panels.append(("Of the predicted class", probabilities.max(1), certain, VERMILION))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with picture(path, columns * WIDTH, rows * HEIGHT) as figure:
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, values, reference, colour) in zip(grid, panels, strict=False):
            axes.hist(values, BINS, color=colour, edgecolor="white", linewidth=0.5)
            if reference is not None:
                weights = np.full(len(reference), len(values) / len(reference))
                axes.hist(reference, BINS, weights=weights, histtype="step", color="black", label="own test images")
                axes.legend(loc="upper left", fontsize=8)
            axes.axvline(1 / len(classes), color=GREY, linestyle=":", linewidth=1)
            axes.set_title(title)
            axes.set_xlim(0, 1)
            axes.set_xlabel("probability")
            axes.set_ylabel("images")
            axes.yaxis.get_major_locator().set_params(integer=True)
        for axes in grid[len(panels) :]:
            axes.remove()
