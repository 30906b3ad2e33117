"""The history of training, epoch by epoch: mean and standard deviation over folds and repeats.

Like the figures of de Moura et al. 2020 of five repetitions: a logarithmic axis, the best mean accuracy and its epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxrtool.data.tables.manifest import Row
from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray, mean_defined, spread
from cxrtool.imaging.canvas import SUBSETS, legend_below, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST = 2
"""Runs that a mean and its standard deviation need."""

SOUGHT = {"train": "training", "validation": "validation"}
"""The subsets whose best mean is printed, in words; test images have curves only where a training watched them."""

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
        values: (R, E) of the R runs by the column of `history.csv`, NaN where a run has none.
        mean: (E,) mean over these runs, NaN where no run has a value.
        sd: Likewise the standard deviation (ddof 1), NaN for fewer than two.
        score: The score beside the loss: `accuracy`.
    """

    epochs: IntArray
    runs: IntArray
    values: Mapping[str, FloatArray]
    mean: Mapping[str, FloatArray]
    sd: Mapping[str, FloatArray]
    score: str

    @property
    def shared(self) -> int:
        """The last epoch that all runs reached."""
        return int(self.epochs[self.runs == self.runs[0]][-1])

    def best(self, part: str) -> Best | None:
        """The best mean score of `train` or `validation` among the epochs that all runs reached, if it was measured."""
        name = f"{part}_{self.score}"
        means = self.mean.get(name, np.array([]))[self.epochs <= self.shared]
        if not len(means) or np.isnan(means).all():
            return None
        index = int(np.nanargmax(means))
        known = [row for row in self.values[name] if not np.isnan(row).all()]
        own = np.array([[np.nanmax(row), self.epochs[np.nanargmax(row)]] for row in known])
        value, epoch = (Spread(float(mean), _known(sd)) for mean, sd in zip(own.mean(0), spread(own), strict=True))
        return Best(int(self.epochs[index]), Spread(float(means[index]), _known(self.sd[name][index])), value, epoch)

    def summary(self) -> dict[str, Any]:
        """The best of each part as plain values, for `metrics.json`."""
        found = {part: best for part in SOUGHT if (best := self.best(part)) is not None}
        return {
            "runs": int(self.runs[0]),
            "score": self.score,
            "best": {
                part: {
                    "epoch": best.epoch,
                    "value": best.value.mean,
                    "sd": best.value.sd,
                    "own_value": best.own_value.mean,
                    "own_value_sd": best.own_value.sd,
                    "own_epoch": best.own_epoch.mean,
                    "own_epoch_sd": best.own_epoch.sd,
                }
                for part, best in found.items()
            },
        }


@dataclass(frozen=True)
class Spread:
    """A mean and its standard deviation (ddof 1) over runs; None where fewer than two have a value."""

    mean: float
    sd: float | None

    def words(self, digits: int) -> str:
        """As in a table.

        >>> Spread(0.5, 0.25).words(3), Spread(0.5, None).words(1)
        ('0.500 ± 0.250', '0.5')
        """
        return f"{self.mean:.{digits}f}" + ("" if self.sd is None else f" ± {self.sd:.{digits}f}")


@dataclass(frozen=True)
class Best:
    """The best score of a part.

    Attributes:
        epoch: Of the highest mean over the runs; the first of equal ones.
        value: The score of the runs at this epoch.
        own_value: The score of each run at its own best epoch.
        own_epoch: That epoch, from 1.
    """

    epoch: int
    value: Spread
    own_value: Spread
    own_epoch: Spread


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def average(histories: Sequence[Sequence[Row]]) -> Repetitions | None:
    """Average the rows of several `history.csv`, epoch by epoch; None for fewer than two runs."""
    histories = [rows for rows in histories if rows]
    if len(histories) < FEWEST:
        return None
    names = [name for name in dict.fromkeys(n for rows in histories for n in rows[0]) if name not in ("epoch", "lr")]
    reached = [{int(float(row["epoch"])): row for row in rows} for rows in histories]
    epochs = np.array(sorted({epoch for rows in reached for epoch in rows}), np.intp)
    values = {}
    for name in names:
        cells = [[rows.get(int(epoch), {}).get(name, "") for epoch in epochs] for rows in reached]
        values[name] = np.array([[float(cell) if cell else np.nan for cell in row] for row in cells])
    mean = {name: mean_defined(entry) for name, entry in values.items()}
    sd = {name: spread(entry) for name, entry in values.items()}
    counts = np.array([sum(int(epoch) in rows for rows in reached) for epoch in epochs], np.intp)
    scores = [name.removeprefix("train_") for name in names if name.startswith("train_") and name != "train_loss"]
    return Repetitions(epochs, counts, values, mean, sd, scores[0] if scores else "accuracy")


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
    epochs, shared = found.epochs, found.shared
    best = {part: entry for part in SOUGHT if (entry := found.best(part)) is not None}
    with picture(path, 9.2, 4.6) as figure:
        for axes, what in zip(figure.subplots(1, 2), ("loss", found.score), strict=True):
            for part, (colour, style) in SUBSETS.items():
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
                    axes.plot(epochs[own], mean[own], color=colour, linestyle=style, linewidth=1.8, label=part)
                    axes.fill_between(epochs[own], low[own], high[own], color=colour, alpha=0.2, linewidth=0)
                axes.plot(epochs[late], mean[late], color=colour, linewidth=1, linestyle=":")
            for part, entry in best.items():
                colour, style = SUBSETS[part]
                axes.axvline(entry.epoch, color=colour, linestyle=style, linewidth=0.8, zorder=0)
                if what == found.score:
                    axes.plot(entry.epoch, entry.value.mean, color=colour, marker="D", markersize=5)
            axes.set(
                xlabel="epoch (logarithmic axis)", ylabel=what, xscale="log", xlim=(0.95, 1.05 * max(2, epochs[-1]))
            )
            axes.set_xticks(*_ticks(int(epochs[-1])))
            axes.minorticks_off()
            if what in BOUNDED:
                axes.set_ylim(0, 1.02)
            else:
                _scale(axes, [found.mean[f"{part}_{what}"] for part in SUBSETS if f"{part}_{what}" in found.mean])
            axes.grid(alpha=0.25)
        legend_below(figure, figure.axes[0].get_legend_handles_labels()[0])
        figure.suptitle(_title(found), x=0.01, ha="left")


def _scale(axes: Axes, means: Sequence[FloatArray]) -> None:
    """Start the axis at 0, or make it logarithmic where one epoch, usually the first, would flatten all others."""
    values = np.concatenate(means)
    positive = values[values > 0]
    if positive.size and positive.max() > STEEP * np.median(positive):
        axes.set(yscale="log", ylim=(positive.min() / 2, positive.max() * 2))
        axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic axis)")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)


def _title(found: Repetitions) -> str:
    lines = [f"Mean and SD (band) of {found.runs[0]} runs; vertical line: epoch of the best mean {found.score}"]
    for part, words in SOUGHT.items():
        best = found.best(part)
        if best is not None:
            lines.append(
                f"{words}: best mean {found.score} {best.value.words(3)} at epoch {best.epoch}; best of each run "
                f"{best.own_value.words(3)} at epoch {best.own_epoch.words(1)}"
            )
    if not np.isnan(found.mean.get(f"test_{found.score}", np.array([np.nan]))).all():
        lines.append("test images: for looking only, nothing is chosen by them")
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
