"""One table with its notes, and what its cells look like. Needs nothing but the standard library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "-"

MOST_RUNS = 10
"""Runs up to which each has a row of its own; of more, SD and the file with all figures tell."""

REMARKED = {
    "Wilson": "Wilson's interval",
    "Wilson's ends of sensitivity and specificity": "From Wilson's intervals of sensitivity and specificity",
}
"""Methods of intervals that are told below a table, where they are not what its opening says."""


@dataclass(frozen=True)
class Sheet:
    """One table with its notes; all cells are text.

    Attributes:
        title: What it shows.
        columns: Header.
        rows: Cells.
        notes: Lines that belong below it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def cell(measure: Mapping[str, Any], digits: int = 2) -> str:
    """A figure with its interval.

    >>> cell({"value": 0.942, "low": 0.907, "high": 0.961})
    '0.94 (0.91-0.96)'
    >>> cell({"value": None, "low": None, "high": None})
    '-'
    >>> cell({"value": -0.1, "low": -0.3, "high": 0.2})
    '-0.10 (-0.30 to 0.20)'
    """
    if measure["value"] is None:
        return ABSENT
    value = fixed(measure["value"], digits)
    if measure["low"] is None:
        return value
    # A hyphen before a minus sign would read as one long dash.
    joint = " to " if measure["low"] < 0 else "-"
    return f"{value} ({fixed(measure['low'], digits)}{joint}{fixed(measure['high'], digits)})"


def count_of(number: int, noun: str) -> str:
    """A number of things.

    >>> count_of(1, "patient"), count_of(2, "patient")
    ('1 patient', '2 patients')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals, or a dash where there is none."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of text cells as lines of Markdown, the first column to the left and the others to the right.

    >>> markdown(["of", "n"], [["a", "1"]])
    ['| of | n |', '| --- | ---: |', '| a | 1 |']
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    return [line(columns), "| --- |" + " ---: |" * (len(columns) - 1), *map(line, rows)]


LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    mark: "\\" + mark for mark in "&%$#_{}"
}
"""How LaTeX writes the marks that mean something to it."""


def latex(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of text cells as lines of LaTeX, with the rules of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(mark, mark) for mark in cell) for cell in cells) + r" \\"

    head = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\toprule", line(columns), r"\midrule"]
    return [*head, *map(line, rows), r"\bottomrule", r"\end{tabular}"]


def as_markdown(sheet: Sheet, title: str) -> list[str]:
    """A table with its notes as lines of Markdown, under a line that stands for its title.

    >>> as_markdown(Sheet("A", ["of", "n"], [["a", "1"]], ["few"]), "## A")
    ['', '## A', '', '| of | n |', '| --- | ---: |', '| a | 1 |', '', '- few']
    """
    notes = [""] * bool(sheet.notes) + [f"- {note}" for note in sheet.notes]
    return ["", title, "", *markdown(sheet.columns, sheet.rows), *notes]


class Notes:
    """Collects remarks on single figures, one line for all figures that share a remark."""

    def __init__(self) -> None:
        self.by_text: dict[str, dict[str, list[str]]] = {}

    def add(self, measure: Mapping[str, Any], metric: str, of: str) -> None:
        """Take in what is remarked on one figure of a class, a group or a set."""
        for text in (REMARKED.get(measure["method"]), measure["reason"]):
            if text:
                self.by_text.setdefault(text, {}).setdefault(metric, []).append(of)

    def say(self, text: str) -> None:
        """Take in a line of its own."""
        self.by_text.setdefault(text, {})

    def lines(self) -> list[str]:
        """All remarks, in the order in which they came."""
        lines = []
        for text, metrics in self.by_text.items():
            # Metrics that are remarked on for the same classes or groups share their list of names.
            shared: dict[tuple[str, ...], list[str]] = {}
            for metric, names in metrics.items():
                shared.setdefault(tuple(names), []).append(metric)
            parts = [
                ", ".join(same) + (f" of {', '.join(names)}" if any(names) else "") for names, same in shared.items()
            ]
            lines.append(f"{text}: {'; '.join(parts)}." if parts else text)
        return lines
