"""The program: the list of commands, the command line of each, and what the user sees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""The layout of every help page."""


@dataclass(frozen=True)
class Invocation:
    """How the program was called: its command line, and what runs another one and returns its exit code."""

    argv: Sequence[str] = ()
    run: Callable[[Sequence[str]], int] = lambda line: 0
