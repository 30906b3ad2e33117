"""A table with its notes, and the format of its cells. Needs only the standard library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrtool.errors import count_of as count_of

ABSENT = "-"

MOST_RUNS = 10
"""The highest number of runs for which each gets a row of its own."""

REMARKED = {
    "Wilson": "Wilson's interval",
    "Wilson's ends of sensitivity and specificity": "From Wilson's intervals of sensitivity and specificity",
}
"""Methods of intervals with a note below the table, because they differ from those in the opening lines."""


@dataclass(frozen=True)
class Sheet:
    """A table of text cells, with notes below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def cell(measure: Mapping[str, Any], digits: int = 2) -> str:
    """A value with its interval.

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
    # A hyphen before a minus sign would look like one long dash.
    joint = " to " if measure["low"] < 0 else "-"
    return f"{value} ({fixed(measure['low'], digits)}{joint}{fixed(measure['high'], digits)})"


def fixed(value: float | None, digits: int) -> str:
    """A number with this many decimals, or a dash for None."""
    # Adding zero avoids "-0.00".
    return ABSENT if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[:])|\s*[\r\n]+\s*")
_INERT = {"<": "&lt;", "&": "&amp;", "]": "\\]"}


def plain(text: str) -> str:
    r"""A text in Markdown that stays text, although a class may be called `<script>`; `<0.001` is no tag.

    >>> plain("<b>x</b> <0.001 & [a](b)")
    '&lt;b>x&lt;/b> <0.001 & [a\\](b)'
    """
    return _ACTIVE.sub(lambda found: _INERT.get(found[0], " "), text)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of text cells as lines of Markdown, the first column left-aligned, the others right-aligned.

    >>> markdown(["of", "n"], [["a", "1"]])
    ['| of | n |', '| --- | ---: |', '| a | 1 |']
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(plain(text).replace("|", "\\|") for text in cells) + " |"

    return [line(columns), "| --- |" + " ---: |" * (len(columns) - 1), *map(line, rows)]


LATEX = {mark: "\\" + mark for mark in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # In the encoding of fonts that LaTeX starts with, these three are other marks.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
"""Escapes of the special characters of LaTeX."""


def latex(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of text cells as lines of LaTeX, with rules of the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(mark, mark) for mark in cell) for cell in cells) + r" \\"

    head = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\toprule", line(columns), r"\midrule"]
    return [*head, *map(line, rows), r"\bottomrule", r"\end{tabular}"]


def as_markdown(sheet: Sheet, title: str) -> list[str]:
    """A table with its notes as lines of Markdown, below `title`.

    >>> as_markdown(Sheet("A", ["of", "n"], [["a", "1"]], ["few"]), "## A")
    ['', '## A', '', '| of | n |', '| --- | ---: |', '| a | 1 |', '', '- few']
    """
    notes = [""] * bool(sheet.notes) + [f"- {plain(note)}" for note in sheet.notes]
    return ["", plain(title), "", *markdown(sheet.columns, sheet.rows), *notes]


class Notes:
    """Collects remarks on single values, one line for all values that share a remark."""

    def __init__(self) -> None:
        self.by_text: dict[str, dict[str, list[str]]] = {}

    def add(self, measure: Mapping[str, Any], metric: str, of: str) -> None:
        """Add the remarks on one value of a class, a group or a set."""
        for text in (REMARKED.get(measure["method"]), measure["reason"]):
            if text:
                self.by_text.setdefault(text, {}).setdefault(metric, []).append(of)

    def add_line(self, text: str) -> None:
        """Add a line of its own."""
        self.by_text.setdefault(text, {})

    def lines(self) -> list[str]:
        """All remarks, in the order of their addition."""
        lines = []
        for text, metrics in self.by_text.items():
            # Metrics with the same remark for the same classes or groups share a list of names.
            shared: dict[tuple[str, ...], list[str]] = {}
            for metric, names in metrics.items():
                shared.setdefault(tuple(names), []).append(metric)
            parts = [
                ", ".join(same) + (f" of {', '.join(names)}" if any(names) else "") for names, same in shared.items()
            ]
            lines.append(f"{text}: {'; '.join(parts)}." if parts else text)
        return lines
