"""Jobs that do not need one another, side by side in processes on this machine.

A `Start` opens what all jobs of a command share and returns what does one job; both it and the jobs can be pickled, so
that another executor may do the same jobs elsewhere: `start(report, request)(job)`. What a job makes, it writes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from cxrtool import stopping
from cxrtool.errors import CxrtoolError, StoppedError
from cxrtool.flow.settings import Advance, Reporter
from cxrtool.flow.signals import StopRequest

Job = TypeVar("Job")
Start = Callable[[Reporter, StopRequest], Callable[[Job], None]]

POLL = 0.2
"""Seconds between two looks whether a signal has arrived."""


def side_by_side(start: Start[Job], jobs: Sequence[Job], count: int, report: Reporter, request: StopRequest) -> None:
    """Do the jobs, `count` at a time, each in a process that does one after the other.

    After a signal, or an error in one job, the others save their state and end; the same command then continues.

    Args:
        start: Called once in each process, before its first job.
        jobs: `str` of one is its name in messages.
        count: Processes.
        report: Gets the messages and the progress of all.
        request: Looked at while the jobs run.

    Raises:
        CxrtoolError: Of a job, or its process was killed; the message begins with the job.
        StoppedError: A signal arrived.
    """
    waiting, running = deque(jobs), list[_Worker[Job]]()
    failure: BaseException | None = None
    stopped = request.error()
    with report.together() as shown:
        try:
            while running or (waiting and not (failure or stopped)):
                while waiting and len(running) < count and not (failure or stopped):
                    running.append(_Worker(start, waiting.popleft(), shown))
                ready = wait([worker.pipe for worker in running], POLL)
                for worker in [worker for worker in running if worker.pipe in ready]:
                    try:
                        if worker.listen():
                            worker.give(waiting.popleft() if waiting and not (failure or stopped) else None)
                    except (EOFError, OSError):
                        running.remove(worker)
                        failure = failure or worker.fate()
                stopped = stopped or request.error()
                if failure or stopped:
                    for worker in running:
                        worker.stop()
        finally:
            for worker in running:
                worker.process.kill()
                worker.process.join()
    if failure or stopped:
        raise failure or stopped  # type: ignore[misc]


class _Worker(Generic[Job]):
    """A process, and the end of its pipe that is here."""

    def __init__(self, start: Start[Job], job: Job, report: Reporter) -> None:
        # A fork of a process whose numerical libraries have threads may wait for ever.
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.job, self.report = job, report
        self.begun = self.ending = False
        self.error: BaseException | None = None
        self.loops: dict[int, tuple[contextlib.ExitStack, Advance]] = {}
        self.process: BaseProcess = context.Process(target=_work, args=(there, start))
        # Only this process reacts to a signal, and tells the others, which inherit that signals wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.CODES)
        try:
            # What Python starts beside the first process unblocks signals, so it has to be there before.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, stopping.CODES)
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()
        self.pipe.send(job)

    def give(self, job: Job | None) -> None:
        """Send the next job; None ends the process, which saves the state of its job first."""
        if self.ending:
            return
        self.ending, self.begun, self.job = job is None, self.begun and job is None, job or self.job
        with contextlib.suppress(OSError):
            self.pipe.send(job)

    def stop(self) -> None:
        """End the process, at once where it has not begun what it could save."""
        self.give(None)
        if not self.begun:
            self.process.kill()

    def listen(self) -> bool:
        """Take one message; whether it is that the job is done."""
        kind, *content = self.pipe.recv()
        if kind == "begin":
            number, label, total = content
            self.begun, stack = True, contextlib.ExitStack()
            self.loops[number] = stack, stack.enter_context(self.report.progress(label, total))
        elif kind == "advance":
            self.loops[content[0]][1](content[1])
        elif kind == "end":
            self.loops.pop(content[0])[0].close()
        elif kind == "failed":
            self.error = pickle.loads(content[0])
        elif kind != "done":
            getattr(self.report, kind)(*content)
        return bool(kind == "done")

    def fate(self) -> BaseException | None:
        """Why the process has ended, if not because it was told to."""
        self.process.join()
        for stack, _ in self.loops.values():
            stack.close()
        error, name = self.error, str(self.job)
        if isinstance(error, CxrtoolError):
            error.begin_with(name)
        if error is None and self.process.exitcode and (self.begun or not self.ending):
            by = f"signal {-self.process.exitcode}" if self.process.exitcode < 0 else f"code {self.process.exitcode}"
            error = CxrtoolError(
                f"{name}: its process was ended by {by}, as where memory does not suffice",
                "the same command continues from the last checkpoint; fewer --jobs need less memory",
            )
        return error


class _Asked(StopRequest):
    """The request of the process that gave the job, or its end."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self.pipe, self.stopped = pipe, False

    def error(self) -> StoppedError | None:
        """What to raise once the state is saved, or None."""
        if not self.stopped and self.pipe.poll():
            with contextlib.suppress(EOFError, OSError):
                self.pipe.recv()
            self.stopped = True
        code = stopping.CODES[signal.SIGTERM]
        return StoppedError(f"stopped; {stopping.AGAIN}", code) if self.stopped else None


class _Relay(Reporter):
    """Sends messages and progress to the process that gave the job."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.loops = pipe, 0

    def _send(self, *message: Any) -> None:
        # Who does not listen any more will be noticed by the request.
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def say(self, text: str) -> None:
        """Write one line."""
        self._send("say", text)

    def warn(self, text: str) -> None:
        """Write one line that should not be overlooked."""
        self._send("warn", text)

    def note(self, text: str) -> None:
        """Write one line of progress."""
        self._send("note", text)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Advance]:
        """Show the progress of a loop."""
        self.loops += 1
        number = self.loops
        self._send("begin", number, label, total)
        try:
            yield lambda count: self._send("advance", number, count)
        finally:
            self._send("end", number)


def _work(pipe: Connection, start: Start[Any]) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    request, report = _Asked(pipe), _Relay(pipe)
    with contextlib.suppress(StoppedError, EOFError, BrokenPipeError):
        try:
            do = start(report, request)
            while not request.stopped and (job := pipe.recv()) is not None:
                do(job)
                pipe.send(("done",))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            pipe.send(("failed", _pickled(error)))


def _pickled(error: Exception) -> bytes:
    """An error; that of a bug with its traceback as a note, which is printed with it."""
    if not isinstance(error, CxrtoolError):
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(data := pickle.dumps(error))
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))
    return data


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        # The request is answered meanwhile, if the state can be saved.
        time.sleep(stopping.GRACE)
        os._exit(1)
