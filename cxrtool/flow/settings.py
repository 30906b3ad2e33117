"""What every command is told beside its own options, and how a step speaks to its user."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

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


@dataclass(frozen=True)
class Settings:
    """The options that all commands share; a step's own options are a dataclass beside the step.

    Attributes:
        out: The file or folder to write; None prints to standard output where the command allows it.
        seed: Everything that is drawn is drawn from it.
        threads: Threads of the numeric libraries; part of a step's identity, because sums depend on it.
        workers: Processes that read and write images; never bears on the result.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        precision: `auto`, `fp32` or `bf16`.
        force: Redo what is there already.
        dry_run: Say what would be done, and do nothing.
        strict: Exit with code 3 when something was rejected.
        verify: Hash the inputs instead of trusting size and time.
        allow_leakage: Warn where a step would refuse.
        root: Images may only be read below this folder.
        cache: The folder for decoded images.
        origins: Where each option came from: default, preset, config or flag.
        argv: The command line.
        report: Where messages and progress go.
    """

    out: Path | None = None
    seed: int = 0
    threads: int = 1
    workers: int = 1
    device: str = "auto"
    precision: str = "auto"
    force: bool = False
    dry_run: bool = False
    strict: bool = False
    verify: bool = False
    allow_leakage: bool = False
    root: Path | None = None
    cache: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    argv: Sequence[str] = ()
    report: Reporter = field(default_factory=Silent)
