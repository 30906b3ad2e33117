"""The errors a user may meet; `cxrtool.cli.main` turns each into one or two lines and an exit code.

A message states what was expected, what was found (file, line, value) and what to do next. Anything that is not a
`CxrtoolError` is a bug in cxrtool and keeps its traceback.
"""

from __future__ import annotations

from pathlib import PurePath

NO_FILE = "no such file"
"""Why a path cannot be read at which there is nothing."""


def count_of(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, for a message; `plural` is needed where it is not the noun with an s.

    >>> count_of(1, "patient"), count_of(12345, "patient"), count_of(2, "class", "classes")
    ('1 patient', '12345 patients', '2 classes')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


class CxrtoolError(Exception):
    """Something the user can fix; the base of all errors that cxrtool raises on purpose.

    Args:
        message: What was expected and what was found, in one line.
        hint: What to do next, in one line; printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def begin_with(self, name: str) -> None:
        """Begin the message with what it is about, unless that is in it."""
        if name not in self.message:
            self.message = f"{name}: {self.message}"
            self.args = (self.message,)


class UsageError(CxrtoolError):
    """The command line itself is wrong: an unknown value, options that exclude one another."""

    exit_code = 2


class InputError(CxrtoolError):
    """An input file is missing, unreadable or not what it should be."""


class ChangedError(InputError):
    """A file is not what cxrtool wrote, or an image not the one that its table describes."""


class ImageError(InputError):
    """One image cannot be read as a radiograph; steps list it in `rejects.csv` and go on."""


class NothingReadError(InputError):
    """Not a single image of an input can be read.

    Args:
        name: Of the input.
        count: Number of images in it.
        path: Of the first one; empty where the reason has it.
        reason: Why that cannot be read; empty where none was tried.
        wanted: What was expected.
        hint: What to do; where none is given, what helps where files are missing.
    """

    def __init__(
        self,
        name: str,
        count: int,
        path: str | PurePath = "",
        reason: str = "",
        wanted: str = "an image",
        hint: str | None = None,
    ) -> None:
        first = ": ".join(filter(None, (str(path), reason.removeprefix(f"{path}: "))))
        found = f"none among {count}, the first: {first}" if reason else f"none among {count}"
        moved = "if the table was moved: its paths are relative to its folder" if reason.endswith(NO_FILE) else None
        super().__init__(f"{name}: expected {wanted} that can be read, found {found}", hint or moved)


class OutputError(CxrtoolError):
    """The output cannot be written there: a folder of another origin, no space, no permission."""


class TakenError(OutputError):
    """The output would replace an input, or what another command made."""

    exit_code = 2


class IncompleteError(CxrtoolError):
    """A run lacks folds that the command needs."""


class DivergedError(CxrtoolError):
    """A training diverged: a loss or a weight is no longer finite."""


class StrictError(CxrtoolError):
    """`--strict` was given and something was rejected."""

    exit_code = 3


class LeakageError(CxrtoolError):
    """A test image, or its patient, was used to fit a model or a part."""

    exit_code = 4


class StoppedError(KeyboardInterrupt):
    """A signal arrived; what was done is saved. As Ctrl-C, it is no `Exception`: no library may take it for its own.

    Args:
        message: What was saved, and how to continue.
        exit_code: 75 after SIGUSR1 (requeue me), 130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
