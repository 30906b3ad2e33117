"""The history of training, epoch by epoch: mean and standard deviation over folds and repeats.

Like the figure of de Moura et al. 2020 of five repetitions: a logarithmic axis, the best mean accuracy and its epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, mean_defined, spread
from cxrtool.evaluation.plots.canvas import BLUE, GREY, VERMILION, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 2
"""Runs that a mean and its standard deviation need."""

PARTS = {"train": BLUE, "validation": VERMILION}
FEW_EPOCHS = 10
"""With fewer, every epoch has a tick."""

BOUNDED = ("accuracy", "dice")
"""Scores from 0 to 1."""

STEEP = 20
"""The axis of the loss is logarithmic if the highest mean loss is more than so many times the median."""


@dataclass(frozen=True)
class Repetitions:
    """Mean histories.

    Attributes:
        epochs: (E,) from the first to the last that any run reached.
        runs: (E,) how many runs reached each.
        mean: (E,) mean over these runs by the column of `history.csv`, NaN where no run has a value.
        sd: Likewise the standard deviation (ddof 1), NaN for fewer than two.
        score: The score beside the loss: `accuracy`.
    """

    epochs: IntArray
    runs: IntArray
    mean: Mapping[str, FloatArray]
    sd: Mapping[str, FloatArray]
    score: str

    @property
    def shared(self) -> int:
        """The last epoch that all runs reached."""
        return int(self.epochs[self.runs == self.runs[0]][-1])

    def best(self) -> tuple[int, float] | None:
        """The epoch of the best mean validation score, among the epochs that all runs reached, and that score."""
        values = self.mean.get(f"validation_{self.score}", np.array([]))[self.epochs[: len(self.runs)] <= self.shared]
        if not len(values) or np.isnan(values).all():
            return None
        index = int(np.nanargmax(values))
        return int(self.epochs[index]), float(values[index])


def average(histories: Sequence[Sequence[Row]]) -> Repetitions | None:
    """Average the rows of several `history.csv`, epoch by epoch; None for fewer than two runs."""
    histories = [rows for rows in histories if rows]
    if len(histories) < FEWEST:
        return None
    names = [name for name in dict.fromkeys(n for rows in histories for n in rows[0]) if name not in ("epoch", "lr")]
    reached = [{int(float(row["epoch"])): row for row in rows} for rows in histories]
    epochs = np.array(sorted({epoch for rows in reached for epoch in rows}), np.intp)
    mean, sd = {}, {}
    for name in names:
        cells = [[rows.get(int(epoch), {}).get(name, "") for epoch in epochs] for rows in reached]
        values = np.array([[float(cell) if cell else np.nan for cell in row] for row in cells])
        mean[name], sd[name] = mean_defined(values), spread(values)
    counts = np.array([sum(int(epoch) in rows for rows in reached) for epoch in epochs], np.intp)
    scores = [name.removeprefix("train_") for name in names if name.startswith("train_") and name != "train_loss"]
    return Repetitions(epochs, counts, mean, sd, scores[0] if scores else "accuracy")


def tabulate(found: Repetitions) -> tuple[list[str], list[Row]]:
    """Header and rows of `repetitions.csv`: `epoch`, `runs`, and `_mean` and `_sd` of each column."""
    columns = ["epoch", "runs", *(f"{name}_{what}" for name in found.mean for what in ("mean", "sd"))]
    rows: list[Row] = []
    for index, epoch in enumerate(found.epochs):
        row = {"epoch": str(epoch), "runs": str(found.runs[index])}
        for name in found.mean:
            for what, values in (("mean", found.mean[name]), ("sd", found.sd[name])):
                row[f"{name}_{what}"] = "" if np.isnan(values[index]) else f"{values[index]:.9g}"
        rows.append(row)
    return columns, rows


def draw(found: Repetitions, path: Path) -> None:
    """Plot mean and SD of loss and score over the epochs, on a logarithmic axis.

    After the last epoch that all runs reached the line is dotted: the mean of the runs that had not stopped.
    """
    epochs, shared, best = found.epochs, found.shared, found.best()
    with picture(path, 9.2, 4.1) as figure:
        for axes, what in zip(figure.subplots(1, 2), ("loss", found.score), strict=True):
            for part, colour in PARTS.items():
                mean, sd = found.mean.get(f"{part}_{what}"), found.sd.get(f"{part}_{what}")
                if mean is None or sd is None or np.isnan(mean).all():
                    continue
                low, high = mean - sd, mean + sd
                if what in BOUNDED:
                    low, high = low.clip(0, 1), high.clip(0, 1)
                own, late = epochs <= shared, epochs >= shared
                if own.sum() == 1:
                    # A single epoch has no line and no band.
                    reach = np.stack([mean - low, high - mean])[:, own]
                    axes.errorbar(epochs[own], mean[own], reach, color=colour, label=part, marker="o", capsize=3)
                else:
                    axes.plot(epochs[own], mean[own], color=colour, linewidth=1.8, label=part)
                    axes.fill_between(epochs[own], low[own], high[own], color=colour, alpha=0.2, linewidth=0)
                axes.plot(epochs[late], mean[late], color=colour, linewidth=1, linestyle=":")
            if best is not None:
                axes.axvline(best[0], color=GREY, linestyle="--", linewidth=1, zorder=0)
            axes.set(xlabel="epoch", ylabel=what, xscale="log", xlim=(0.95, 1.05 * max(2, epochs[-1])))
            axes.set_xticks(*_ticks(int(epochs[-1])))
            axes.minorticks_off()
            if what in BOUNDED:
                axes.set_ylim(0, 1.02)
            else:
                _scale(axes, [found.mean[f"{part}_{what}"] for part in PARTS if f"{part}_{what}" in found.mean])
            axes.grid(alpha=0.25)
        figure.axes[0].legend(loc="best")
        figure.suptitle(_title(found), fontsize=10, x=0.01, ha="left")


def _scale(axes: Axes, means: Sequence[FloatArray]) -> None:
    """Start the axis at 0, or make it logarithmic where one epoch, usually the first, would flatten all others."""
    values = np.concatenate(means)
    positive = values[values > 0]
    if positive.size and positive.max() > STEEP * np.median(positive):
        axes.set(yscale="log", ylim=(positive.min() / 2, positive.max() * 2))
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)


def _title(found: Repetitions) -> str:
    best = found.best()
    lines = [f"Mean and SD (band) of {found.runs[0]} runs"]
    if best is not None:
        lines[0] += f"; best mean validation {found.score} {best[1]:.3f} at epoch {best[0]} (dashed)"
    if found.shared < found.epochs[-1]:
        lines.append(f"Dotted after epoch {found.shared}: only the runs that had not stopped")
    return "\n".join(lines)


def _ticks(last: int) -> tuple[list[int], list[str]]:
    if last < FEW_EPOCHS:
        ticks = list(range(1, last + 1))
    else:
        steps = [step * 10**power for power in range(len(str(last))) for step in (1, 2, 5)]
        ticks = [tick for tick in steps if tick <= last]
    return ticks, [str(tick) for tick in ticks]
