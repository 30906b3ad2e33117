"""A signal stops a long step at the next safe point; a second signal stops it at once."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from cxrtool import stopping
from cxrtool.errors import StoppedError


class StopRequest:
    """Records SIGINT, SIGTERM and SIGUSR1 inside its `with` block; `error` is what to raise when it is safe.

    Who calls `error` has a state to save, and will call it again. Until then, and after `raise_if_stopped`, there is
    nothing to save, and a signal has its effect at once. One that arrives after the last call of `error` is raised
    where the block ends.
    """

    def __init__(self) -> None:
        self._received: tuple[signal.Signals, float] | None = None
        self._told = False
        self._saves = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in stopping.CODES:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and not self._told:
            self.raise_if_stopped()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._saves:
            stopping.stop(number, frame)
        elif self._received is None:
            self._received = signal.Signals(number), now
        elif number != self._received[0] or now - self._received[1] >= stopping.ECHO:
            stopping.stop(number, frame)

    def error(self) -> StoppedError | None:
        """What to raise once the state is saved, or None where no signal arrived."""
        self._saves = True
        if self._received is None:
            return None
        self._told = True
        return stopping.reason(self._received[0])

    def raise_if_stopped(self) -> None:
        """Raise `error`, at a point where nothing is left to save."""
        error = self.error()
        self._saves = False
        if error:
            raise error
