"""The history of a training run as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cxrtool.data.files import atomic_path
from cxrtool.data.manifest import write_table
from cxrtool.training.engine import History
from cxrtool.training.job import COLUMNS, Row

BOUNDED = ("accuracy", "dice")
"""Scores from 0 to 1."""

COLOURS = {"train": "#0072B2", "validation": "#D55E00"}
"""Blue and vermilion of Okabe and Ito: told apart by every kind of colour vision."""


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write one row an epoch; what was not measured is empty."""
    names = list(rows[0]) if rows else list(COLUMNS)
    text = [{name: "" if (value := row[name]) is None else f"{value:.9g}" for name in names} for row in rows]
    write_table(path, names, text)


def draw_history(path: Path, history: History, title: str) -> None:
    """Draw the loss and the score beside it over the epochs, with the epoch that was kept."""
    from matplotlib.figure import Figure

    score = next((name.removeprefix("train_") for name in history.rows[0] if name.startswith("train_")
                  and name != "train_loss"), "accuracy") if history.rows else "accuracy"  # fmt: skip
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history.rows]
    for axes, what in zip(figure.subplots(1, 2), ("loss", score), strict=True):
        for part, colour in COLOURS.items():
            values = [row[f"{part}_{what}"] for row in history.rows]
            if any(value is not None for value in values):
                axes.plot(epochs, values, color=colour, label=part, marker="o" if len(epochs) == 1 else "", lw=1.5)
        axes.axvline(history.kept, color="0.6", lw=1, ls="--", label=f"kept: epoch {history.kept}")
        axes.set(xlabel="epoch", ylabel=what, xlim=(0.5, max(2, len(epochs)) + 0.5))
        if what in BOUNDED:
            axes.set_ylim(0, 1.02)
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
