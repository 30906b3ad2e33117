"""What the user sees: tables on standard output, messages and progress on standard error."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cxrtool.evaluation.sheet import latex, markdown, plain
from cxrtool.flow.settings import Advance, Output, Reporter, Silent, Stage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY = 15.0
"""Seconds between two progress lines where no bar can be drawn, without a terminal."""


class Lines(Reporter):
    """Messages as lines on standard error; progress as a bar on a terminal, else as an occasional line."""

    def say(self, text: str) -> None:
        """Write one line; a terminal gets it wrapped at words."""
        width = width_of(sys.stderr)
        sys.stderr.write((text if width is None or "\n" in text else wrapped(text, width)) + "\n")
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
            with self.together() as bars, bars.progress(label, total) as fill:
                yield fill
            return
        done, last_line = 0, time.monotonic()

        def advance(count: int) -> None:
            nonlocal done, last_line
            done += count
            if time.monotonic() - last_line > LINE_EVERY:
                last_line = time.monotonic()
                self.say(f"{label}: {done} of {total}")

        yield advance

    @contextlib.contextmanager
    def together(self) -> Iterator[Reporter]:
        """Show a bar for each loop; without a terminal each has lines of its own."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            yield Bars(bars)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show a command that a longer one runs: live on a terminal; afterwards, and elsewhere only then, as a line."""
        started = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                stage = Stage(Inside(bar, bar.add_task(title, total=None)))
                yield stage
        else:
            stage = Stage(Silent())
            yield stage
        found = f": {stage.found}" if stage.found else ""
        self.say(f"{title}{found}  ({time.monotonic() - started:.0f} s)")


@dataclass(frozen=True)
class Bars(Lines):
    """The progress of several loops, a bar for each."""

    bars: Progress

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show one more bar while the block runs."""
        task = self.bars.add_task(label, total=total)
        try:
            yield lambda count: self.bars.advance(task, count)
        finally:
            self.bars.refresh()
            self.bars.remove_task(task)


@dataclass(frozen=True)
class Inside(Reporter):
    """The progress of a command within the line of its stage; its messages are not shown."""

    bar: Progress
    task: TaskID

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Fill the bar of the stage."""
        self.bar.update(self.task, total=total, completed=0)
        yield lambda count: self.bar.advance(self.task, count)
        self.bar.update(self.task, total=None)


NARROW = 14
"""Characters below which a column of text is not folded further."""


def width_of(stream: Any) -> int | None:
    """The columns of a terminal; None where the stream is none, so that lines stay whole for other programs."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, width: int, indent: str = "  ") -> str:
    """A line of prose, wrapped at words; the lines after the first are indented. Paths and commands stay whole."""
    kept = text[: len(text) - len(text.lstrip())]
    return "\n".join(
        textwrap.wrap(
            text,
            max(width, 20),
            subsequent_indent=kept + indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        or [""]
    )


def render(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: str = "table",
    title: str = "",
    width: int | None = None,
) -> str:
    """A table of text cells in one of `FORMATS`; columns of text are left-aligned, numbers to the right.

    With `width`, a `table` that is wider is folded: first cells of text take several lines, then columns that still
    do not fit follow below, each block with the first column.
    """
    if style == "json":
        return json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1, ensure_ascii=False)
    if style == "csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
        return buffer.getvalue().rstrip("\n")
    if style == "md":
        return "\n".join(([f"**{plain(title)}**", ""] if title else []) + markdown(columns, rows))
    if style == "latex":
        return "\n".join(([f"% {title}"] if title else []) + latex(columns, rows))
    head = wrapped(title, width) if title and width else title
    return "\n".join([*filter(None, [head]), "\n\n".join(_blocks(columns, rows, width))])


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The table in as many blocks as are needed for the width."""
    table = list(zip(columns, *rows, strict=True))
    widths = [max(map(len, column)) for column in table]
    text = [i == 0 or any(cell[:1].isalpha() for cell in column[1:]) for i, column in enumerate(table)]
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return [_block(table, widths, text)]
    folded = list(widths)
    while sum(folded) + 2 * (len(folded) - 1) > width:
        widest = max((i for i in range(len(folded)) if text[i]), key=lambda i: folded[i])
        if folded[widest] <= NARROW:
            break
        folded[widest] -= 1
    blocks: list[list[int]] = [[]]
    for index in range(1, len(table)):
        taken = [0, *blocks[-1], index]
        if blocks[-1] and sum(folded[i] for i in taken) + 2 * (len(taken) - 1) > width:
            blocks.append([])
        blocks[-1].append(index)
    shown = [[0, *block] for block in blocks]
    return [_block([table[i] for i in own], [folded[i] for i in own], [text[i] for i in own]) for own in shown]


def _block(table: Sequence[Sequence[str]], widths: Sequence[int], text: Sequence[bool]) -> str:
    lines = []
    for number, cells in enumerate(zip(*table, strict=True)):
        parts = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for several in itertools.zip_longest(*parts, fillvalue=""):
            aligned = zip(several, widths, text, strict=True)
            made = "  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in aligned)
            lines.append(made.rstrip())
        if not number:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _folded(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_on_hyphens=True) or [""] if len(cell) > width else [cell]


class Console(Output):
    """Results on standard output; where that is for a program, notes for a person go to `report`."""

    def __init__(self, style: str, digits: int, report: Reporter) -> None:
        self.style, self.digits, self._report = style, digits, report

    def write(self, text: str) -> None:
        """Write text as it is."""
        sys.stdout.write(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Write a table of text cells in the chosen format."""
        self.write(render(columns, rows, self.style, title, width_of(sys.stdout)) + "\n")

    def aligned(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
        """A table as text in columns, for a message."""
        return render(columns, rows, title=title, width=width_of(sys.stderr))

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
        width = width_of(sys.stdout) if self.style == "table" else None

        def prose(text: str) -> None:
            self.write((wrapped(text, width) if width else text) + "\n")

        for line in tables.opening(found):
            prose(mark + line)
        for sheet in tables.sheets(found, self.digits):
            self.write("\n" + render(sheet.columns, sheet.rows, self.style, sheet.title, width) + "\n")
            for note in sheet.notes:
                prose(f"{mark or '  '}{note}")
