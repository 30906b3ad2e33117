"""The map over images: processes on this machine, a bounded number of items in progress, results in order.

A decoder in C can crash its whole process on a damaged file. Then every item in progress is tried again, each in a
separate process: only the one that crashes again is lost. With `--cluster` the same chunks of items go to the workers
of a cluster.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import chain, islice
from typing import TypeVar

from cxrtool import stopping
from cxrtool.data.confinement import confine, confinement
from cxrtool.data.files import NO_SPACE, scratch_folder
from cxrtool.errors import CxrtoolError, ImageError, InputError, OutputError
from cxrtool.flow.cluster import CRASHED, Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 8
"""Items per task: submitting a task costs about 0.2 ms, a radiograph about 10 ms."""


def map_items(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 1,
    preload: Sequence[str] = (),
    cluster: Cluster | None = None,
) -> Iterator[tuple[Item, Result | InputError]]:
    """Apply `function` to every item in worker processes; yield (item, result) in the items' order.

    An `InputError` (so also an `ImageError`) is yielded instead of the result; so is an `ImageError` for an item whose
    decoder killed its process or raised another error. Memory is bounded: at most four chunks per worker are in
    progress.

    `function` is one of a module, or a `functools.partial` of one; the modules in `preload` are imported once. Even a
    single worker is a separate process, so that a crash loses only one item. A cluster has its own workers.

    Raises:
        OutputError: A worker could not write; other items would fail too.
    """
    if cluster:
        yield from cluster.map(partial(run_each, function), items, CHUNK)
        return
    stream = iter(items)
    first = list(islice(stream, 1))
    if not first:
        return
    stream = chain(first, stream)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cxrtool.flow.parallel", "cv2", *preload])
    _start_server()
    flight: deque[tuple[list[Item], Future[list[Result | InputError]] | None]] = deque()
    pool = _open_pool(workers, context)
    try:
        while True:
            while len(flight) < 4 * workers and (chunk := list(islice(stream, CHUNK))):
                try:
                    flight.append((chunk, _submit(pool, function, chunk)))
                except BrokenProcessPool:
                    # A worker died meanwhile; the chunk is tried again with all that are in progress.
                    flight.append((chunk, None))
            if not flight:
                return
            chunk, future = flight[0]
            try:
                results = future.result() if future else None
            except BrokenProcessPool:
                results = None
            if results is None:
                pool.shutdown(wait=False, cancel_futures=True)
                waiting = [item for chunk, _ in flight for item in chunk]
                flight.clear()
                yield from _one_by_one(function, waiting, context)
                pool = _open_pool(workers, context)
                continue
            flight.popleft()
            yield from zip(chunk, results, strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], chunk: Sequence[Item]
) -> Future[list[Result | InputError]]:
    # A worker that is just being started is not yet among the processes that a signal ends.
    with stopping.Held():
        try:
            return pool.submit(run_each, function, chunk)
        except (EOFError, ConnectionError) as error:
            # The process that makes workers is gone: a signal to the whole group may reach it before this one.
            raise BrokenProcessPool from error


@cache
def _name_sockets() -> None:
    """Give the folder of sockets, which stays in `$TMPDIR` after a SIGKILL, a name by which the next run removes it."""
    folder = contextlib.ExitStack()
    path = folder.enter_context(scratch_folder("w"))
    # A socket and its folder have names of at most 108 bytes; Python's own are shorter.
    if len(os.fsencode(path)) < 80:
        multiprocessing.current_process()._config.setdefault("tempdir", str(path))  # type: ignore[attr-defined]
        atexit.register(folder.close)
    else:
        folder.close()


def _start_server() -> None:
    """Start the process that makes the workers, and the one that counts their semaphores.

    A scheduler signals all processes of a job. Only this one reacts: what it starts inherits that SIGUSR1 is blocked.
    """
    from multiprocessing import forkserver, resource_tracker

    _name_sockets()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    # It warns of a semaphore that a signal left half removed, which is no news for a user.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        resource_tracker.ensure_running()
        forkserver.ensure_running()
    finally:
        sys.warnoptions.remove("ignore:resource_tracker:UserWarning")
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item], context: multiprocessing.context.ForkServerContext
) -> Iterator[tuple[Item, Result | InputError]]:
    pool: ProcessPoolExecutor | None = None
    for item in items:
        pool = pool or _open_pool(1, context)
        try:
            yield item, _submit(pool, function, [item]).result()[0]
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = None
            yield item, ImageError(CRASHED)
    if pool:
        pool.shutdown(wait=False)


def _open_pool(workers: int, context: multiprocessing.context.ForkServerContext) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker, initargs=confinement())


def _prepare_worker(confined: list[str], allowed: list[str]) -> None:
    import threading

    # A worker writes where the step that started it may write.
    confine(confined, allowed)

    # Ctrl-C is sent to the whole group of processes; only the parent reacts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # Parallelism is over images; threads of a library would compete for the same processors.
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)


def _leave_with_parent() -> None:
    # Without this, workers of a killed parent would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_each(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result | InputError]:
    """Apply a function to items, in a worker: the result of each, or why it has none.

    Raises:
        CxrtoolError: The cause is not an item; so is an `ImportError`.
    """
    results: list[Result | InputError] = []
    for item in chunk:
        try:
            results.append(function(item))
        except InputError as error:
            results.append(error)
        except MemoryError:
            results.append(ImageError("not enough memory to decode it"))
        except (CxrtoolError, ImportError):
            # Not caused by this item.
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise OutputError(
                    f"no space left to write: {error}", "free some space; what was finished before is kept"
                ) from error
            if os.environ.get("CXRTOOL_DEBUG"):
                raise
            # Decoders raise almost any error on a damaged file; one file must not end the run.
            results.append(ImageError(f"cannot be decoded: {type(error).__name__}: {error}".splitlines()[0][:300]))
    return results
