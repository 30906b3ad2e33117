"""What every command is told beside its own options, and how a step speaks to its user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from cxrtool.options import option

Advance = Callable[[int], None]
"""Called with the number of items that were finished since the last call."""


class Reporter(Protocol):
    """Where messages and progress go: to standard error from a command, nowhere from a step called as a function."""

    def say(self, text: str) -> None:
        """Tell the user one line."""

    def warn(self, text: str) -> None:
        """Tell the user one line that should not be overlooked."""

    def note(self, text: str) -> None:
        """Tell the user one line of progress, unless a bar shows it."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """Show how far a long loop is."""


class Silent:
    """A reporter that says nothing."""

    def say(self, text: str) -> None:
        """Drop it."""

    def warn(self, text: str) -> None:
        """Drop it."""

    def note(self, text: str) -> None:
        """Drop it."""

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Count in silence."""
        yield lambda count: None


@dataclass(frozen=True)
class Muted(Silent):
    """A reporter that says nothing but how far a long loop is: for a step that another one calls.

    Attributes:
        other: Who is told that.
    """

    other: Reporter

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show it where the other one would."""
        with self.other.progress(label, total) as advance:
            yield advance


class Output(Protocol):
    """Where results go that a person or a program reads: to standard output from a command, else nowhere."""

    def write(self, text: str) -> None:
        """Write text as it is."""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Write a table of text cells in the format that was asked for."""

    def report(self, found: Any, tables: ModuleType, dump: Callable[[Any], str]) -> None:
        """Write what an evaluation found, in the format that was asked for.

        Args:
            found: What it found.
            tables: The module that lays it out: its `opening`, `sheets`, `tidy` and `markdown`.
            dump: Makes the JSON of it.
        """

    def aligned(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
        """A table as text in columns, for a message."""


class Nowhere:
    """An output that drops all."""

    def write(self, text: str) -> None:
        """Drop it."""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Drop it."""

    def report(self, found: Any, tables: ModuleType, dump: Callable[[Any], str]) -> None:
        """Drop it."""

    def aligned(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
        """Nothing."""
        return ""


RUNNING = ("force", "dry_run", "quiet", "config")
READING = ("root", "strict", "verify")
COMPUTING = ("threads", "workers", "device")
"""Fields of `Settings` that commands take together: how to run, how to read images, and what to compute with."""

FORMATS = ("table", "md", "latex", "csv", "json")


@dataclass(frozen=True)
class Settings:
    """The options that commands share; a command's own are a dataclass beside it, which names those that it takes.

    Attributes:
        out: The file or folder to write; None prints to standard output where the command allows it.
        threads: Part of a step's identity, because sums depend on it.
        workers: Never bears on the result.
        allow_leakage: Warn where a step would refuse.
        origins: Where each option came from: default, preset, config or flag.
        argv: The command line.
        report: Where messages and progress go.
        output: Where results go that are printed.
        call: Runs another command by its command line, as typed; returns its exit code.
    """

    out: Path | None = option("Where to write; exactly there.", None, flags=("--out", "-o"), shown="", effect=False)
    seed: int = option("Everything that is drawn is drawn from it.", 0, minimum=0)
    threads: int = option(
        "Threads of the numeric libraries; results depend on it.", 1, minimum=1, shown="all processors"
    )
    workers: int = option("Processes that read and write images.", 1, minimum=1, shown="all processors", effect=False)
    device: str = option("auto, cpu, cuda, or one GPU as cuda:1.", "auto", effect=False)
    precision: str = option("auto, fp32 or bf16.", "auto")
    force: bool = option("Redo what is there already.", False, effect=False)
    dry_run: bool = option("Say what would be done, and do nothing.", False, effect=False)
    strict: bool = option("Exit with code 3 when something was rejected.", False, effect=False)
    verify: bool = option("Hash the inputs instead of trusting size and time.", False, effect=False)
    allow_leakage: bool = option("Warn, instead of refusing, where a test image was seen in training.", False)
    root: Path | None = option("Read images only below this folder.", None, shown="", effect=False)
    cache: Path | None = option(
        "Folder for decoded images.", None, envvar="CXRTOOL_CACHE", shown="$SLURM_TMPDIR, else $TMPDIR", effect=False
    )
    quiet: bool = option("No progress, no messages but errors.", False, flags=("--quiet", "-q"), effect=False)
    config: Path | None = option(
        "Defaults from a TOML file, or from an old run.json, which repeats that run.", None, shown="", effect=False
    )
    style: str = option("table, md, latex, csv or json.", "table", flags=("--format",), choices=FORMATS, effect=False)
    digits: int = option("Decimals in tables.", 2, minimum=0, maximum=10, effect=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    argv: Sequence[str] = ()
    report: Reporter = field(default_factory=Silent)
    output: Output = field(default_factory=Nowhere)
    call: Callable[[Sequence[str]], int] = lambda line: 0
