"""The figures that a paper printed beside those of the runs here, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxrtool.evaluation.tables import ABSENT, Sheet, cell

FIGURES = ("precision", "sensitivity", "f1", "specificity")
"""What papers print of a class, in their order."""

AS_PRINTED = ("precision", "recall", "f1", "specificity")
"""The same as the files of printed figures call them."""

WHOLE = ("balanced_accuracy", "macro_auc")
PRINTED = {
    "accuracy": "accuracy", "counted": "from counts", "balanced_accuracy": "balanced accuracy", "macro_auc": "AUC",
    "precision": "precision", "recall": "recall", "f1": "F1", "specificity": "specificity",
}  # fmt: skip
ALWAYS = ("accuracy", "counted", *AS_PRINTED)
ALL_CLASSES = "(mean)"

Line = tuple[str, str, dict[str, str]]
"""Run, class, and cells by the keys of `PRINTED`."""


def published(found: Mapping[str, Any], digits: int = 2) -> Sheet:
    """The printed figures beside ours.

    Args:
        found: The content of `comparison.json`, with `published`.
        digits: Decimals of our own figures.
    """
    paper = found["published"]
    style = _Style(digits, paper.get("percent", False))
    entries: list[Line] = []
    notes = []
    for row in paper["rows"]:
        run, name = found["runs"][row["run"]], f"{row['name']} (printed)"
        entries += _beside(row, run, name, style)
        counted, printed = row["accuracy_recomputed"], row["accuracy_printed"]
        if None not in (counted, printed) and abs(counted - printed) >= _precision(printed):
            share = f"{row['right']} of {row['images']} images right are {counted:.4f}"
            notes.append(f"{row['name']}: {share}, not {printed:.4g}.")
        notes += [f"{row['name']}: {note}." for note in row["notes"]]
        if row["stands_in"]:
            notes.append(f"{row['run']}: {row['stands_in']}.")
        absent = [label for label in row["per_class"] if label not in run["per_class"]]
        if absent:
            notes.append(f"{row['run']} has no class {', '.join(absent)}.")
    if not paper["rows"]:
        notes.append("None of the networks here stands in the paper's table.")
    if paper["not_run_here"] and paper["rows"]:
        notes.append(f"In the paper, but not here: {', '.join(paper['not_run_here'])}.")
    notes = [*dict.fromkeys(notes), *paper["notes"], paper["source"]]
    notes.append("Other test images than here: figures side by side, not compared.")
    # Means over many runs follow from no counts.
    always = ALWAYS if not style.percent else [key for key in ALWAYS if key != "counted"]
    shown = [key for key in PRINTED if key in always or any(cells.get(key) for _, _, cells in entries)]
    rows = [[run, label, *(cells.get(key, "") for key in shown)] for run, label, cells in entries]
    columns = ["run", "class", *(PRINTED[key] for key in shown)]
    return Sheet(f"Beside {paper['title']}", columns, rows, notes)


@dataclass(frozen=True)
class _Style:
    """How figures are written beside those of one paper.

    Attributes:
        digits: Decimals of our own figures.
        percent: As percentages, and standard deviations behind them where the paper has some.
    """

    digits: int
    percent: bool

    def ours(self, entry: Mapping[str, Any], more: int = 0, spread: str = "") -> str:
        """One of our figures, with its standard deviation where one is asked for: `sd_runs` or `sd_repeats`."""
        if entry["value"] is None:
            return ABSENT
        sd = entry[spread] if spread else None
        if not self.percent:
            return cell({**entry, "low": None}, self.digits + more) + (f" ± {sd:.{self.digits}f}" if sd else "")
        return f"{100 * entry['value']:.{self.digits}f}" + (f" ± {100 * sd:.{self.digits}f}" if sd is not None else "")

    def theirs(self, value: float, sd: float | None = None) -> str:
        """A figure as the paper prints it."""
        if not self.percent:
            return _as_printed(value)
        return f"{100 * value:.2f}" + (f" ± {100 * sd:.2f}" if sd is not None else "")


def _beside(row: Mapping[str, Any], run: Mapping[str, Any], name: str, style: _Style) -> list[Line]:
    """The lines of one run and of what a paper printed of the same: run, class, and cells by the keys of `PRINTED`."""
    overall, per_class, sd = run["overall"], row["per_class"], row.get("sd") or {}
    counted, printed = row["accuracy_recomputed"], row["accuracy_printed"]
    spread = "sd_runs" if sd else ""
    ours = {"accuracy": style.ours(overall["accuracy"], 2, spread)}
    theirs = {"accuracy": "" if printed is None else f"{printed:.4g}", "counted": _counted(counted)}
    if style.percent and printed is not None:
        theirs["accuracy"] = style.theirs(printed, sd.get("accuracy"))
    if row["overall"]:
        ours |= {key: style.ours(overall[key], 1) for key in WHOLE}
        theirs |= {key: f"{row['overall'][key]:.4g}" for key in WHOLE if key in row["overall"]}
    lines: list[Line] = []
    # What is said of all classes goes before them where there is more of it than the accuracy.
    if (row["overall"] and len(per_class) != 1) or not per_class:
        names = {f"macro_{metric}": figure for metric, figure in zip(FIGURES, AS_PRINTED, strict=True)}
        if row["overall"]:
            ours |= {figure: style.ours(overall[key]) for key, figure in names.items()}
        theirs |= {figure: f"{row['overall'][key]:.2f}" for key, figure in names.items() if key in row["overall"]}
        lines += [(row["run"], ALL_CLASSES, ours), (name, ALL_CLASSES, theirs)]
        ours, theirs = {}, {}
    for label, figures in per_class.items():
        own, spreads = run["per_class"].get(label), sd.get("per_class", {}).get(label, {})
        for metric, figure in zip(FIGURES, AS_PRINTED, strict=True):
            ours[figure] = style.ours(own[metric], spread=spread) if own else ABSENT
            if figure in figures:
                theirs[figure] = style.theirs(figures[figure], spreads.get(figure))
        lines += [(row["run"], label, ours), (name, label, theirs)]
        ours, theirs = {}, {}
    return lines + _strata(row, run, name, style) + _folds(row, name)


def _strata(row: Mapping[str, Any], run: Mapping[str, Any], name: str, style: _Style) -> list[Line]:
    """Accuracies by the values of a column; what the paper has not, ours has alone, and the other way round."""
    lines: list[Line] = []
    for column, printed in (row.get("groups") or {}).items():
        own = {label.lower(): found for label, found in run.get("per_group", {}).get(column, {}).items()}
        for label in dict.fromkeys([*printed, *own]):
            what = f"{column}: {label}"
            if label in own:
                lines.append((row["run"], what, {"accuracy": style.ours(own[label]["accuracy"], 2, "sd_repeats")}))
            if label in printed:
                lines.append((name, what, {"accuracy": style.theirs(*printed[label])}))
    return lines


def _folds(row: Mapping[str, Any], name: str) -> list[Line]:
    lines: list[Line] = []
    for number, fold in enumerate(row["folds"], 1):
        cells = {"counted": _counted(fold["accuracy_recomputed"])}
        cells |= {key: f"{fold['overall'][key]:.4g}" for key in WHOLE if key in fold["overall"]}
        for label, figures in fold["per_class"].items():
            cells |= {figure: _as_printed(value) for figure, value in figures.items()}
            lines.append((f"{name}, fold {number}", label, cells))
    return lines


def _counted(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _as_printed(value: float) -> str:
    """A share with the decimals that it has, but at least two.

    >>> _as_printed(0.96), _as_printed(0.9671), _as_printed(1.0)
    ('0.96', '0.9671', '1.00')
    """
    return f"{value:.4f}" if round(value, 2) != value else f"{value:.2f}"


def _precision(value: float) -> float:
    """From which difference on a figure is not what was printed; two decimals are round figures.

    >>> _precision(0.79), _precision(0.9588)
    (0.005, 5e-05)
    """
    return 5e-5 if round(value, 2) != value else 5e-3
