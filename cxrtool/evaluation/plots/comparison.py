"""Figures of a comparison: the metric of each run, its difference from the reference, its training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.evaluation.comparison.tables import metric_name, p_value, seconds, signed
from cxrtool.evaluation.tables import cell, count_of
from cxrtool.imaging.canvas import BLUE, SKY, VERMILION, draw_interval, picture, shorten, wrapped, write_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Comparison = Mapping[str, Any]

WIDTH = 7.2
LINE = 0.36
MANY_FOLD = 30
"""Times that differ by more than this factor are drawn on a logarithmic axis."""

TESTED = ("models", "methods")
"""The tests of a comparison: of these trained models, and of the methods that trained them."""


def draw_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Draw the figures of a `comparison.json` into a folder.

    Returns:
        The files: `forest.png`; `differences.png` where runs were compared; `seconds.png` where times are known.
    """
    files = [folder / "forest.png"]
    draw_forest(found, files[0])
    if any(made["difference"]["value"] is not None for made in found["comparisons"]):
        files.append(folder / "differences.png")
        draw_differences(found, files[-1])
    if any("seconds" in run["facts"] for run in found["runs"].values()):
        files.append(folder / "seconds.png")
        draw_seconds(found, files[-1])
    return files


def draw_forest(found: Comparison, path: Path) -> None:
    """The metric of every run with its interval; hollow markers have Wilson's interval."""
    metric, reference = shorten(metric_name(found), 40), (found["reference"] or {}).get("name")
    shown = [(name, run) for name, run in found["runs"].items() if run["metric"]["value"] is not None]
    with picture(path, WIDTH, _height(len(shown))) as figure:
        axes = figure.subplots()
        wilson = False
        for y, (name, run) in enumerate(shown):
            measure = run["metric"]
            hollow = measure["method"] == "Wilson"
            wilson = wilson or hollow
            colour, marker = (VERMILION, "s") if name == reference else (BLUE, "o")
            draw_interval(axes, y, measure, colour, marker, hollow=hollow)
            write_beside(axes, y, cell(measure))
        if reference is not None and found["runs"][reference]["metric"]["value"] is not None:
            value = found["runs"][reference]["metric"]["value"]
            axes.axvline(value, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
        labels = [wrapped(name, 26) + ("\n(reference)" if name == reference else "") for name, _ in shown]
        _lines(axes, labels)
        lows = [
            run["metric"]["low"] if run["metric"]["low"] is not None else run["metric"]["value"] for _, run in shown
        ]
        highs = [run["metric"]["high"] or run["metric"]["value"] for _, run in shown]
        axes.set(xlim=_limits(min(lows, default=0.0), max(highs, default=1.0)))
        axes.set(xlabel=metric + " (hollow: Wilson's interval)" * wilson)
        first = next(iter(found["runs"].values()))
        same = all(run["images"] == first["images"] for run in found["runs"].values())
        title = metric[0].upper() + metric[1:]
        axes.set_title(title + (f", {count_of(first['images'], 'test image')}" if same else ""))


def draw_differences(found: Comparison, path: Path) -> None:
    """The difference of every run from the reference on the same images, with its paired interval and p values."""
    made = [entry for entry in found["comparisons"] if entry["difference"]["value"] is not None]
    several = len(found["comparisons"]) > 1
    with picture(path, WIDTH, _height(len(made)) + 0.3) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=VERMILION, linestyle="--", linewidth=1, zorder=0)
        for y, entry in enumerate(made):
            measure = entry["difference"]
            draw_interval(axes, y, measure, BLUE)
            key = "p_holm" if several else "p"
            parts = [f"{test}: {_shown_p(entry[test][key])}" for test in TESTED if entry[test][key] is not None]
            write_beside(axes, y, signed(measure, 3) + ("\n" + ", ".join(parts) if parts else ""), size=8)
        _lines(axes, [wrapped(entry["name"], 26) for entry in made])
        ends = [entry["difference"][end] for entry in made for end in ("value", "low", "high")]
        known = [0.0, *(end for end in ends if end is not None)]
        margin = max(0.01, 0.06 * (max(known) - min(known)))
        axes.set(xlim=(min(known) - margin, max(known) + margin))
        against = shorten(made[0]["against"], 26)
        axes.set_xlabel(f"difference in {shorten(metric_name(found), 30)} (above 0: better than {against})")
        adjusted = f"\np adjusted for {len(found['comparisons'])} comparisons (Holm)" if several else ""
        axes.set_title(f"Difference from {against} on the same images{adjusted}")


def draw_seconds(found: Comparison, path: Path) -> None:
    """Seconds of one training of every run for which they are known."""
    shown = [(name, run["facts"]["seconds"]) for name, run in found["runs"].items() if "seconds" in run["facts"]]
    values = [max(value, 0.01) for _, value in shown]
    wide = max(values) / min(values) > MANY_FOLD
    with picture(path, WIDTH, _height(len(shown))) as figure:
        axes = figure.subplots()
        axes.barh(range(len(shown)), values, height=0.62, color=SKY)
        for y, (_, value) in enumerate(shown):
            axes.annotate(
                f"{seconds(value)} s",
                (max(value, 0.01), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                annotation_clip=False,
            )
        _lines(axes, [wrapped(name, 26) for name, _ in shown])
        if wide:
            axes.set(xscale="log", xlim=(min(values) / 2, max(values) * 2))
            # Plain numbers: powers of ten need math text, which is off so that names of runs stay text.
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, _: "")
        else:
            axes.set(xlim=(0, max(values) * 1.1))
        folds = " (mean of its runs)" if any(run["runs"] > 1 for run in found["runs"].values()) else ""
        axes.set_xlabel("seconds" + (" (logarithmic axis)" if wide else ""))
        axes.set_title(f"Seconds of one training{folds}, without reading images")


def _lines(axes: Axes, labels: Sequence[str]) -> None:
    """One line a run, the first on top, with a faint grid."""
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _limits(low: float, high: float) -> tuple[float, float]:
    """Limits of the axis of a metric: close to the intervals, and at most 1."""
    margin = max(0.02, 0.06 * (high - low))
    below, above = low - margin, high + margin
    return (max(below, 0.0) if low >= 0 else below), min(above, 1.0) + (0.005 if above >= 1.0 else 0.0)


def _height(lines: int) -> float:
    return 1.25 + LINE * max(lines, 2)


def _shown_p(p: float) -> str:
    text = p_value(p)
    return f"p {text[0]} {text[1:].strip()}" if text.startswith("<") else f"p = {text}"
