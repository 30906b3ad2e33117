"""How the program stops: SIGINT, SIGTERM and SIGUSR1 end it at any time, from the first import to the last rename.

The first signal raises a `StoppedError`, which is no `Exception`, so that no library takes it for a failure of its own;
code that drops every error meets it again until the program has caught it. The process ends at once, and removes the
files that are listed as unfinished, while a module is imported (libraries in C++ abort if an import fails at the wrong
moment), at a second signal, and after `GRACE` seconds in which the first one had no effect. Only modules that are
loaded in an instant are imported here: the handlers are in place before anything slow is imported.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from cxrtool.errors import StoppedError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
"""Exit codes; 75 asks a scheduler to requeue the job."""

AGAIN = "run the same command again to continue"
GRACE = 3.5
"""Seconds after which a process leaves that is still there; a user waits at most 5."""
ECHO = 0.5
"""Seconds within which the same signal is the same request: `timeout` and `srun` send each one twice."""

AGAIN_AFTER = 0.25
"""Seconds after which it is raised again."""

unfinished: set[str] = set()
"""Temporary files and locks of this process, which are removed when it has to leave."""


class _State:
    name = "cxrtool"
    depth = 0
    is_program = False
    first: tuple[signal.Signals, float] | None = None
    held = 0
    pending = False
    told = False


_state = _State()


def reason(number: signal.Signals) -> StoppedError:
    """What a signal raises."""
    return StoppedError(f"stopped by {number.name}; {AGAIN}", CODES[number])


def start() -> None:
    """Install the handlers for the whole process: the first thing that the program does."""
    if _state.is_program:
        return
    _state.is_program = True
    _state.depth += 1
    _install()
    sys.unraisablehook = _unraisable
    # The last that Python calls; afterwards it would give each signal its default effect.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in CODES])


class Heeded:
    """Has the handlers in place inside its `with` block, called `name` in messages; blocks may be nested."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Heeded:
        self._outer, _state.name = _state.name, self._name
        if not _state.depth:
            self._before = _install()
        _state.depth += 1
        return self

    def __exit__(self, *error: object) -> None:
        _state.depth -= 1
        _state.name = self._outer
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            _state.first, _state.told = None, False

    @property
    def is_outermost(self) -> bool:
        """Whether nothing around this block can end the program."""
        return _state.depth == 1 + _state.is_program


class Held:
    """Delays a signal until the end of its `with` block, which is short: two renames that belong together."""

    def __enter__(self) -> None:
        _state.held += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _state.held -= 1
        if _state.pending and not _state.held and _state.first:
            _state.pending = False
            if error is None:
                raise reason(_state.first[0])


def stop(number: int, frame: FrameType | None = None) -> None:
    """What a signal does: raises a `StoppedError`, and leaves if there was one before or if nothing happens then.

    Raises:
        StoppedError: Always, but for a signal that repeats the last one, and where it has to wait.
    """
    received, now = signal.Signals(number), time.monotonic()
    if _state.first is not None and _state.is_program:
        if received == _state.first[0] and now - _state.first[1] < ECHO:
            return
        leave(CODES[received], f"stopped at once by a second signal, {received.name}; {AGAIN}")
    _state.first = received, now
    if _state.is_program:
        _thread.start_new_thread(_leave_late, (received,))
        signal.signal(signal.SIGALRM, _raise_again)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_AFTER, AGAIN_AFTER)
    if _state.held:
        _state.pending = True
        return
    if _state.is_program and _is_importing(frame):
        leave(CODES[received], reason(received).message)
    raise reason(received)


def told() -> None:
    """The reason has been caught and written: it is not raised and not written again."""
    _state.told = True
    if _state.is_program:
        signal.setitimer(signal.ITIMER_REAL, 0)


def finish(code: int) -> NoReturn:
    """End the program with this exit code; a signal that arrives from here on comes too late to change it."""
    if _state.first is not None:
        # What was interrupted may be half imported, and Python's own way out would wait for running workers.
        leave(code)
    for number in CODES:
        signal.signal(number, lambda *_: os._exit(code))
    sys.exit(code)


def leave(code: int, message: str = "") -> NoReturn:
    """End the process now: say why, and remove what is unfinished, worker processes too."""
    try:
        if message and not _state.told:
            _state.told = True
            # A bar of progress hides the cursor.
            shown = "\r\x1b[?25h" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{shown}{_state.name}: {message}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, RuntimeError):
        pass
    try:
        for process in getattr(sys.modules.get("multiprocessing"), "active_children", list)():
            process.kill()
        remove_unfinished()
        # Named semaphores of worker processes are removed here.
        if "multiprocessing.util" in sys.modules:
            atexit._run_exitfuncs()
    finally:
        os._exit(code)


def remove_unfinished() -> None:
    """Remove the temporary files and folders of this process."""
    while unfinished:
        path = unfinished.pop()
        try:
            os.unlink(path)  # noqa: PTH108
        except IsADirectoryError:
            import shutil

            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass


def _install() -> dict[signal.Signals, Any]:
    try:
        return {number: signal.signal(number, _on_signal) for number in CODES}
    except ValueError:
        # Only the main thread gets signals.
        return {}


def _on_signal(number: int, frame: FrameType | None) -> None:
    stop(number, frame)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave_late(received: signal.Signals) -> None:
    time.sleep(GRACE)
    leave(CODES[received], f"stopped by {received.name}; {AGAIN}")


def _raise_again(number: int, frame: FrameType | None) -> None:
    if _state.first is None or _state.told:
        return
    stopped = reason(_state.first[0])
    if _state.held:
        _state.pending = True
    elif _is_importing(frame):
        leave(stopped.exit_code, stopped.message)
    else:
        raise stopped


def _unraisable(about: UnraisableHookArgs) -> None:
    # Raised in a destructor or a callback, it ends nothing, and it is raised again.
    if not isinstance(about.exc_value, StoppedError):
        sys.__unraisablehook__(about)
