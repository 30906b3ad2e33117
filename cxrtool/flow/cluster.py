"""Work on many machines: a map over the workers of a Dask cluster, or of one that is started on this machine.

A worker is given a function and some items at a time. All machines see the same files, so that an item is a path and a
result is small. A worker that dies costs what it was doing: Dask gives that to another one. An item that ends one
worker after the other is one whose decoder crashes: then what is in progress is tried again item by item, and only
that one is lost.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import cxrtool
from cxrtool import processors, stopping
from cxrtool.data.confinement import confine, confinement
from cxrtool.data.files import scratch_folder
from cxrtool.errors import CxrtoolError, ImageError, InputError, StoppedError, UsageError
from cxrtool.flow.settings import Reporter, Settings
from cxrtool.flow.side_by_side import Job, Start
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.versions import version_of

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
NEEDS = "--cluster needs Dask, which is not installed"
EXTRA = "`pip install 'cxrtool[cluster]'`"
CRASHED = "the decoder crashed on this file: it is damaged, or not of the type that its first bytes indicate"

_PATIENCE = 10
"""Seconds until a scheduler has to answer."""
_VISIBLE = 3
"""Seconds until a new folder has to be visible on another machine: shared file systems remember what was not there."""
_DEATHS = 1
"""Workers that a task may cost on `local` before it is tried again item by item."""


@dataclass(frozen=True)
class Cluster:
    """A cluster, to which this process connects when there is something to do.

    Attributes:
        address: Of the scheduler, or its file, or `LOCAL`.
        workers: Processes of a local cluster.
        say: Told that there is no worker yet.
    """

    address: str
    workers: int
    say: Callable[[str], None]

    @classmethod
    def of(cls, settings: Settings) -> Cluster | None:
        """That of `--cluster`; None where it is not given."""
        return None if settings.cluster is None else cls(settings.cluster, settings.workers, settings.report.say)

    def map(
        self, function: Callable[[Sequence[Item]], Sequence[Result | InputError]], items: Iterable[Item], size: int
    ) -> Iterator[tuple[Item, Result | InputError]]:
        """Apply a function to `size` items at a time; yield (item, result) in the items' order.

        The function is one of a module, or a `functools.partial` of one. Memory is bounded: at most four calls a worker
        are in progress. An item that ends its worker every time has an `ImageError` as its result.

        Raises:
            CxrtoolError: There is no such cluster, its workers have other versions or other files, or the function
                raised it.
        """
        stream = iter(items)
        first = list(islice(stream, 1))
        if not first:
            return
        stream = chain(first, stream)
        client = _connect(self.address, self.workers)
        function = partial(_fresh, function=function, purpose=uuid.uuid4().hex)
        flight: deque[tuple[list[Item], Any]] = deque()
        try:
            while True:
                room = 4 * self._count(client)
                while len(flight) < room and (some := list(islice(stream, size))):
                    flight.append((some, self._submit(client, function, some)))
                if not flight:
                    return
                some, future = flight[0]
                results = self._result(future)
                if results is None:
                    yield from self._one_by_one(client, function, flight)
                else:
                    flight.popleft()
                    yield from zip(some, results, strict=True)
        finally:
            for _, future in flight:
                future.release()

    def do(self, start: Start[Job], jobs: Sequence[Job], report: Reporter, request: StopRequest) -> None:
        """Do jobs that do not need one another, as `side_by_side` does, each as a call of its own.

        After a signal, or an error in one job, the others save their state and end.

        Args:
            start: Called in a worker, before a job.
            jobs: `str` of one is its name in messages.
            report: Gets the messages of a job once it is done.
            request: Looked at between the jobs.

        Raises:
            CxrtoolError: Of a job, or its workers were killed; the message begins with the job.
            StoppedError: A signal arrived.
        """
        with report.progress("on the cluster", len(jobs)) as advance:
            for job, told in self.map(partial(_do, start=start), jobs, 1):
                if isinstance(told, InputError):
                    raise CxrtoolError(
                        f"{job}: its process was ended again and again, as where memory does not suffice",
                        "the same command continues from the last checkpoint",
                    )
                for kind, text in told:
                    getattr(report, kind)(text)
                advance(1)
                request.raise_if_stopped()

    def _one_by_one(
        self, client: Any, function: Callable[[Sequence[Item]], Any], flight: deque[tuple[list[Item], Any]]
    ) -> Iterator[tuple[Item, Any]]:
        """The results of all that is in progress; what was lost again, while nothing else can end its worker."""
        found = [self._result(future) for _, future in flight]
        while flight:
            some, _ = flight.popleft()
            results = found.pop(0)
            if results is not None:
                yield from zip(some, results, strict=True)
                continue
            for item in some:
                alone = self._result(self._submit(client, function, [item]))
                yield item, ImageError(CRASHED) if alone is None else alone[0]

    def _count(self, client: Any) -> int:
        """The number of workers; 1 while there is none."""
        number = len(client.nthreads())
        if not number and client not in _told:
            _told.add(client)
            self.say(f"{self.address}: no worker is connected yet; waiting")
        return number or 1

    def _submit(self, client: Any, function: Callable[[Sequence[Item]], Any], some: Sequence[Item]) -> Any:
        return client.submit(_work, function, some, Place.here(some), pure=False)

    def _result(self, future: Any) -> Any:
        """The result of a call; None where it cost one worker after the other."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return None
        except CancelledError:
            raise CxrtoolError(
                f"--cluster {self.address}: the scheduler ended", "start it, and run the same command again to continue"
            ) from None
        except (ImportError, AttributeError) as error:
            raise CxrtoolError(
                f"--cluster {self.address}: expected cxrtool {cxrtool.__version__} on every worker, found that it "
                f"cannot be imported: {error}",
                "install the same version there, with the same Python",
            ) from error


class _Notes(Reporter):
    """Keeps messages, each with the name of what reports it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.lines.append(("say", text))

    def warn(self, text: str) -> None:
        """Keep it."""
        self.lines.append(("warn", text))


class _Wanted(StopRequest):
    """Whether who gave a call still waits for it; for the thread that does it."""

    def __init__(self) -> None:
        from distributed import get_worker

        super().__init__()
        self._worker = get_worker()
        self._call = self._worker.get_current_task()

    def error(self) -> StoppedError | None:
        """What to raise once the state is saved, or None."""
        task = self._worker.state.tasks.get(self._call)
        code = stopping.CODES[signal.SIGTERM]
        return None if task and task.state == "executing" else StoppedError(f"stopped; {stopping.AGAIN}", code)


def _do(jobs: Sequence[Job], *, start: Start[Job]) -> list[list[tuple[str, str]]]:
    """Do a job, in a worker; returns its messages."""
    # Dask marks its workers as processes that start no others; images are decoded in some.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    notes = _Notes()
    for job in jobs:
        try:
            start(notes, _Wanted())(job)
        except StoppedError:
            # Nobody waits for it.
            return []
        except CxrtoolError as error:
            error.begin_with(str(job))
            raise
    return [notes.lines]


_told: set[Any] = set()


@dataclass(frozen=True)
class Place:
    """What a worker must have in common with this process, and where it may write.

    Attributes:
        versions: Of cxrtool, Python, and the libraries that results depend on.
        folder: The working directory, to which paths may be relative.
        files: What is there, and must be there for a worker.
        confinement: As `confinement` gives it.
    """

    versions: tuple[tuple[str, str], ...]
    folder: str
    files: tuple[str, ...]
    confinement: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))

    @classmethod
    def here(cls, items: Sequence[Any]) -> Place:
        """That of this process; with the first of some items, if it is a file or a row, or has one."""
        item = items[0]
        found = item.get("path") if isinstance(item, Mapping) else getattr(item, "path", None)
        path = item if isinstance(item, str | Path) else found
        folders, allowed = confinement()
        files = [*folders, *([str(path)] if path and Path(path).exists() else [])]
        return cls(versions(), str(Path.cwd()), tuple(files), (folders, allowed))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make this process work there.

        Raises:
            CxrtoolError: It has other versions, or does not see the files.
        """
        for (name, wanted), (_, found) in zip(self.versions, versions(), strict=True):
            if found != wanted:
                raise CxrtoolError(
                    f"expected {name} {wanted} on every worker, as here, found {found} on {platform.node()}",
                    "install the same versions on all machines",
                )
        before = Path.cwd(), confinement()
        # Where all paths are absolute, it need not be there.
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        try:
            self._find()
            confine(*self.confinement)
            yield
        finally:
            os.chdir(before[0])
            confine(*before[1])

    def _find(self) -> None:
        deadline = time.monotonic() + _VISIBLE
        for name in self.files:
            while not Path(name).exists():
                if time.monotonic() > deadline:
                    raise CxrtoolError(
                        f"expected that every worker sees the same files, found that {name} is not there on "
                        f"{platform.node()}",
                        "use folders that all machines share for input and output",
                    )
                time.sleep(0.2)


def versions() -> tuple[tuple[str, str], ...]:
    """The versions on which results depend."""
    found = {"cxrtool": cxrtool.__version__, "Python": ".".join(platform.python_version_tuple()[:2])}
    found |= {name: version_of(name) for name in ("numpy", "opencv-python-headless", "torch", "pydicom")}
    return tuple(found.items())


_one_at_a_time = threading.Lock()
"""Where a process may write and where it is are the same for all its threads: a worker has one thread at work."""


_purpose = ""


def _fresh(
    some: Sequence[Item], *, function: Callable[[Sequence[Item]], Sequence[Result]], purpose: str
) -> Sequence[Result]:
    """Call the function; the first call of a map forgets what earlier ones left, such as networks by their path."""
    global _purpose
    if purpose != _purpose:
        for name, module in list(sys.modules.items()):
            if name.startswith("cxrtool.") and name != __name__:
                for value in vars(module).values():
                    if hasattr(value, "cache_clear"):
                        value.cache_clear()
        _purpose = purpose
    return function(some)


def _work(function: Callable[[Sequence[Item]], Any], some: Sequence[Item], place: Place) -> Any:
    """Call the function, in a worker."""
    with _one_at_a_time, place.entered():
        _prepare()
        if torch := sys.modules.get("torch"):
            # OpenMP counts for each thread of a process.
            torch.set_num_threads(1)
        return function(some)


@cache
def _prepare() -> None:
    processors.spin_briefly()
    # Parallelism is over images, as in the workers of one machine. torch reads it when it is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


@cache
def _connect(address: str, workers: int) -> Any:
    """A client of the cluster, until this process ends.

    Raises:
        CxrtoolError: Dask is not installed, or nobody answers.
        UsageError: It is no address.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise CxrtoolError(NEEDS, EXTRA) from error
    if not os.environ.get("CXRTOOL_DEBUG"):
        # What ends a task is raised here, too, and becomes one line.
        for name in ("distributed", *logging.root.manager.loggerDict):
            if name.startswith(("distributed", "tornado")):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        # Versions are compared for every task.
        warnings.simplefilter("ignore")
        if address == LOCAL:
            scratch = contextlib.ExitStack()
            folder = scratch.enter_context(scratch_folder("dask"))
            client = _start(workers, folder, dask, distributed)
            # The last one that is registered is the first to be called.
            atexit.register(scratch.close)
            atexit.register(client.cluster.close)
        else:
            client = _call(address, distributed)
    atexit.register(client.close)
    return client


def _call(address: str, distributed: Any) -> Any:
    file = Path(address)
    deadline = time.monotonic() + _PATIENCE
    # A scheduler that was started just now writes it in a moment.
    while file.suffix == ".json" and not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    where = {"address": address if "://" in address else f"tcp://{address}"}
    if file.is_file():
        where = {"scheduler_file": address}
    elif ":" not in address:
        raise UsageError(
            f"--cluster: expected {LOCAL}, an address such as tcp://host:8786, or the file of a scheduler, "
            f"found '{address}'"
        )
    try:
        return distributed.Client(**where, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise CxrtoolError(
            f"--cluster {address}: expected a Dask scheduler, found that nobody answers there",
            "`dask scheduler` starts one and prints its address",
        ) from error


def _start(workers: int, folder: Path, dask: Any, distributed: Any) -> Any:
    """A client of a cluster on this machine, whose processes end with this one.

    A signal reaches all processes of a job, and only this one reacts: what a thread starts inherits what it blocks.
    """
    quiet = {"DASK_LOGGING__DISTRIBUTED": "critical"}
    spawned = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    own = {
        "distributed.nanny.pre-spawn-environ": {**spawned, **quiet},
        "distributed.scheduler.allowed-failures": _DEATHS,
        # It looks at every thread a hundred times a second.
        "distributed.worker.profile.enabled": False,
        "temporary-directory": str(folder),
    }
    found: list[Any] = []

    def start() -> None:
        try:
            with dask.config.set(own):
                found.append(
                    distributed.LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        processes=True,
                        host="127.0.0.1",
                        # Any free port, for the state of the scheduler alone.
                        dashboard_address="127.0.0.1:0",
                        scheduler_kwargs={"dashboard": False},
                        memory_limit=None,
                        local_directory=str(folder),
                        silence_logs=logging.CRITICAL,
                    )
                )
        except Exception as error:
            found.append(error)

    starting = threading.Thread(target=start, daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGUSR1])
    try:
        starting.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while starting.is_alive():
        starting.join(0.1)
    if isinstance(found[0], Exception):
        raise CxrtoolError(f"--cluster {LOCAL}: it cannot be started: {found[0]}") from found[0]
    return distributed.Client(found[0], set_as_default=False)
