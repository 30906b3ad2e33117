"""What the user sees: tables on standard output, messages and progress on standard error."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from cxrtool.evaluation.sheet import latex, markdown
from cxrtool.flow.settings import Advance, Output, Reporter

LINE_EVERY = 15.0
"""Seconds between two progress lines where no bar can be drawn, without a terminal."""


class Lines(Reporter):
    """Messages as lines on standard error; progress as a bar on a terminal, else as an occasional line."""

    def say(self, text: str) -> None:
        """Write one line."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Write one line that starts with the word warning."""
        self.say(f"warning: {text}")

    def note(self, text: str) -> None:
        """Write one line of progress where no bar is drawn."""
        if not sys.stderr.isatty():
            self.say(text)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show progress while the block runs."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(label, total=total)
                yield lambda count: bar.advance(task, count)
            return
        done, last_line = 0, time.monotonic()

        def advance(count: int) -> None:
            nonlocal done, last_line
            done += count
            if time.monotonic() - last_line > LINE_EVERY:
                last_line = time.monotonic()
                self.say(f"{label}: {done} of {total}")

        yield advance


def render(columns: Sequence[str], rows: Sequence[Sequence[str]], style: str = "table", title: str = "") -> str:
    """A table of text cells in one of `FORMATS`; the first column is left-aligned, the others to the right."""
    if style == "json":
        return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1, ensure_ascii=False)
    if style == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
        return buffer.getvalue().rstrip("\n")
    if style == "md":
        return "\n".join(([f"**{title}**", ""] if title else []) + markdown(columns, rows))
    if style == "latex":
        return "\n".join(([f"% {title}"] if title else []) + latex(columns, rows))
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in pairs)

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*filter(None, [title]), line(columns).rstrip(), rule, *(line(row).rstrip() for row in rows)])


class Console(Output):
    """Results on standard output; where that is for a program, notes for a person go to `report`."""

    def __init__(self, style: str, digits: int, report: Reporter) -> None:
        self.style, self.digits, self._report = style, digits, report

    def write(self, text: str) -> None:
        """Write text as it is."""
        sys.stdout.write(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Write a table of text cells in the chosen format."""
        self.write(render(columns, rows, self.style, title) + "\n")

    def aligned(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
        """A table as text in columns, for a message."""
        return render(columns, rows, title=title)

    def report(self, found: Any, tables: ModuleType, dump: Callable[[Any], str]) -> None:
        """Write the results of an evaluation in the chosen format."""
        if self.style == "md":
            self.write(tables.markdown(found, self.digits))
            return
        if self.style in ("csv", "json"):
            # Output for a program must contain nothing else; notes for a person go to standard error.
            for line in tables.opening(found):
                self._report.say(line)
            columns, rows = tables.tidy(found)
            self.write(dump(found) if self.style == "json" else render(columns, rows, self.style) + "\n")
            return
        mark = "% " if self.style == "latex" else ""
        for line in tables.opening(found):
            self.write(mark + line + "\n")
        for sheet in tables.sheets(found, self.digits):
            self.write("\n" + render(sheet.columns, sheet.rows, self.style, sheet.title) + "\n")
            for note in sheet.notes:
                self.write(f"{mark or '  '}{note}\n")
