"""The figure of the scores of heatmaps: each method beside what chance gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrtool.imaging.canvas import BLUE, VERMILION, draw_interval, legend_below, picture, wrapped

WIDTH, LINE = 2.4, 0.34
"""Inches of a panel, and of a line in it."""


def draw(found: Mapping[str, Any], titles: Mapping[str, str], path: Path) -> None:
    """Draw a panel for each score: the mean of each method with its interval, and chance or a random map as a tick.

    Args:
        found: The content of `scores.json`.
        titles: The title of each score.
        path: The PNG.
    """
    from matplotlib.lines import Line2D

    rows: list[tuple[str, Mapping[str, Any], str]] = []
    structures = found.get("structures", {})
    for structure, part in structures.items():
        for method, means in part["methods"].items():
            rows.append((f"{method}\n{wrapped(structure, 18, 1)}", means, "chance"))
    panels = [name for name in titles if any(name in means for _, means, _ in rows)]
    groups = [(rows, panels)] if rows else []
    tested = [(method, means, "random") for method, means in found.get("faithfulness", {}).get("methods", {}).items()]
    if tested:
        groups.append((tested, [name for name in titles if name in tested[0][1]]))
    if not groups:
        return
    wide = max(len(names) for _, names in groups)
    lines = [max(2, len(group)) + 1.2 for group, _ in groups]
    with picture(path, 1.2 + WIDTH * wide, 0.5 + sum(lines) * LINE * 1.5) as figure:
        grid = figure.add_gridspec(len(groups), wide, height_ratios=lines)
        for number, (group, names) in enumerate(groups):
            for column, name in enumerate(names):
                axes = figure.add_subplot(grid[number, column])
                for y, (_, means, against) in enumerate(group):
                    draw_interval(axes, y, means[name], BLUE)
                    axes.plot([means[name][against]] * 2, [y - 0.32, y + 0.32], color=VERMILION, linewidth=2)
                labels = [label for label, _, _ in group] if column == 0 else [""] * len(group)
                axes.set_yticks(range(len(group)), labels, fontsize=9)
                axes.set_ylim(len(group) - 0.4, -0.6)
                axes.set_xlim(left=0)
                axes.grid(axis="x", color="#dddddd", linewidth=0.6)
                axes.set_axisbelow(True)
                better = {"deletion": " (low is good)", "insertion": " (high is good)"}.get(name, "")
                axes.set_title(titles[name] + better)
        handles = [
            Line2D([], [], color=BLUE, marker="o", label="mean, 95 % interval over patients"),
            Line2D([], [], color=VERMILION, marker="|", markersize=12, linestyle="", label="chance; a random map"),
        ]
        legend_below(figure, handles)
