"""A signal stops a long step at the next safe point; a second signal stops it at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from cxrtool.errors import StoppedError

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
"""Exit codes; 75 asks a scheduler to requeue the job."""


class StopRequest:
    """Records SIGINT, SIGTERM and SIGUSR1 inside its `with` block; `error` is what to raise when it is safe."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in CODES:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise StoppedError("stopped at once by a second signal", CODES[signal.Signals(number)])
        self._received = signal.Signals(number)

    def error(self) -> StoppedError | None:
        """What to raise once the state is saved, or None where no signal arrived."""
        if self._received is None:
            return None
        text = f"stopped by {self._received.name}"
        return StoppedError(text, CODES[self._received], "run the same command again to continue")

    def raise_if_stopped(self) -> None:
        """Raise `error`, at a point where nothing is left to save."""
        if error := self.error():
            raise error
