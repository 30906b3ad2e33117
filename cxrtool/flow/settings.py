"""The options that commands share, and where a step's messages, progress and results go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from cxrtool.options import check_choices, option

Advance = Callable[[int], None]
"""Called with the number of items that were finished since the last call."""


class Reporter:
    """Where messages and progress go: to standard error from a command, nowhere from a step called as a function."""

    def say(self, text: str) -> None:
        """Write one line."""

    def warn(self, text: str) -> None:
        """Write one line that should not be overlooked."""

    def note(self, text: str) -> None:
        """Write one line of progress, unless a bar shows it."""

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show the progress of a long loop."""
        yield lambda count: None

    @contextlib.contextmanager
    def together(self) -> Iterator[Reporter]:
        """Give a reporter that shows the progress of several loops at once."""
        yield self

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show one of the commands that a longer one runs in turn: what runs now, and afterwards what it found."""
        yield Stage(self)


@dataclass
class Stage:
    """One of several commands that are run in turn.

    Attributes:
        report: Where this command's progress goes.
        found: A few words on what it found, shown when it is done.
    """

    report: Reporter
    found: str = ""


class Silent(Reporter):
    """A reporter without output."""


@dataclass(frozen=True)
class Muted(Reporter):
    """A reporter that passes on only the progress of long loops, for a step that is called by another."""

    other: Reporter

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show it as `other` does."""
        with self.other.progress(label, total) as advance:
            yield advance


class Output:
    """Where results go: to standard output from a command, else nowhere."""

    def write(self, text: str) -> None:
        """Write text as it is."""

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Write a table of text cells in the chosen format."""

    def report(self, found: Any, tables: ModuleType, dump: Callable[[Any], str]) -> None:
        """Write the results of an evaluation; `tables` is the module that makes tables, `dump` converts to JSON."""

    def aligned(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> str:
        """A table as text in columns, for a message."""
        return ""


class Call(Protocol):
    """What runs another command by its command line."""

    def __call__(self, line: Sequence[str], /, report: Reporter | None = None) -> int:
        """Run it as typed; return its exit code.

        Args:
            line: The command line, without the name of the program.
            report: Where its messages and its progress go, its results then nowhere; None shows all as usual.
        """


def call_nothing(line: Sequence[str], report: Reporter | None = None) -> int:
    """The `Call` of a step that is called as a function."""
    return 0


RUNNING = ("force", "dry_run", "quiet", "config")
READING = ("root", "strict", "verify")
COMPUTING = ("threads", "workers", "device")
SCALING = ("cluster", "part")
"""Fields of `Settings` that commands take together: how to run, read images, compute, and share many images."""

FORMATS = ("table", "md", "latex", "csv", "json")


@dataclass(frozen=True)
class Settings:
    """The options that commands share; the options dataclass of a command names those that it takes.

    Attributes:
        out: None prints to standard output where the command allows it.
        threads: Part of a step's identity, because floating-point sums depend on it.
        origins: The origin of each option: default, preset, config, environment or flag.
        call: Runs another command by its command line.
    """

    out: Path | None = option("Where to write; exactly there.", None, flags=("--out", "-o"), shown="", effect=False)
    seed: int = option("Random seed.", 0, minimum=0)
    threads: int = option(
        "Threads of the numerical libraries; results depend on it.", 1, minimum=1, shown="all processors"
    )
    workers: int = option("Processes that read and write images.", 1, minimum=1, shown="all processors", effect=False)
    device: str = option("auto, cpu, cuda, or one GPU as cuda:1.", "auto", effect=False)
    cluster: str | None = option(
        "Do the work on a Dask cluster: the address or file of its scheduler, or local for one of --workers processes.",
        None,
        metavar="ADDRESS|local",
        shown="",
        effect=False,
    )
    part: str | None = option(
        "Make only this part of the images, e.g. 3/10, beside -o; the same command without it puts all together.",
        None,
        metavar="I/N",
        shown="",
        effect=False,
    )
    precision: str = option("auto, fp32 or bf16.", "auto")
    force: bool = option("Compute again, even if nothing has changed.", False, effect=False)
    replace: bool = option(
        "Replace a finished run of other options or data; finished folds of these options stay.", False, effect=False
    )
    dry_run: bool = option("Print what would be done, without doing it.", False, effect=False)
    strict: bool = option("Exit with code 3 if an image was rejected.", False, effect=False)
    verify: bool = option("Compare inputs by content, not by size and time.", False, effect=False)
    allow_leakage: bool = option("Only warn if a test image was used in training.", False)
    root: Path | None = option("Read images only below this folder.", None, shown="", effect=False)
    cache: Path | None = option(
        "Folder for decoded images.",
        None,
        envvar="CXRTOOL_CACHE",
        shown="yours in $SLURM_TMPDIR, else in $TMPDIR",
        effect=False,
    )
    quiet: bool = option("No progress and no messages except errors.", False, flags=("--quiet", "-q"), effect=False)
    config: Path | None = option(
        "Defaults from a TOML file, or from the run.json of an earlier run, to repeat it.", None, shown="", effect=False
    )
    style: str = option("table, md, latex, csv or json.", "table", flags=("--format",), choices=FORMATS, effect=False)
    digits: int = option("Decimals in tables.", 2, minimum=0, maximum=10, effect=False)
    origins: Mapping[str, str] = field(default_factory=dict)
    argv: Sequence[str] = ()
    report: Reporter = field(default_factory=Silent)
    output: Output = field(default_factory=Output)
    call: Call = call_nothing

    def __post_init__(self) -> None:
        check_choices(self)

    def portable(self) -> Settings:
        """These without what leads to the user, as another process can have them."""
        return replace(self, origins=dict(self.origins), report=Silent(), output=Output(), call=call_nothing)
