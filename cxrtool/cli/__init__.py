"""The program: the list of commands, the command line of each, and what the user sees."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxrtool.flow.settings import Call, Reporter

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""The layout of every help page."""


@dataclass(frozen=True)
class Invocation:
    """How the program was called: its command line, what runs another one, and who else gets its messages."""

    argv: Sequence[str] = ()
    run: Call = lambda line, report=None: 0
    report: Reporter | None = None
