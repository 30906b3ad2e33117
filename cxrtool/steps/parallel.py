"""The one map over images: processes on this machine, a bounded number of items in flight, order kept.

A decoder in C can crash its whole process on a bad file. Then every item that was in flight is tried again, each in a
process of its own: only the one that crashes again is lost.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from cxrtool.errors import CxrtoolError, ImageError

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 8
"""Items a task: handing one over costs about 0.2 ms, a radiograph about 10 ms."""


def default_workers() -> int:
    """The processors that this process may use, which under a scheduler are fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def map_items(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int = 1,
    preload: Sequence[str] = (),
) -> Iterator[tuple[Item, Result | CxrtoolError]]:
    """Apply `function` to every item in worker processes; yield (item, result) in the items' order.

    A `CxrtoolError` is yielded in place of the result; so is an `ImageError` for an item whose decoder killed its
    process or raised anything else. Memory is bounded: at most four chunks a worker are in flight.

    Args:
        function: A module-level function, or a `functools.partial` of one.
        items: What to work on; read lazily.
        workers: Processes. Even a single one is a process of its own, so that a crash loses one item.
        preload: Modules that the workers share from the start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cxrtool.steps.parallel", *preload])
    stream = iter(items)
    flight: deque[tuple[list[Item], Future[list[Result | CxrtoolError]]]] = deque()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        while True:
            while len(flight) < 4 * workers and (chunk := list(islice(stream, CHUNK))):
                flight.append((chunk, pool.submit(_run, function, chunk)))
            if not flight:
                return
            chunk, future = flight[0]
            try:
                results = future.result()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                waiting = [item for chunk, _ in flight for item in chunk]
                flight.clear()
                yield from _one_by_one(function, waiting, context)
                pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
                continue
            flight.popleft()
            yield from zip(chunk, results, strict=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item], context: multiprocessing.context.ForkServerContext
) -> Iterator[tuple[Item, Result | CxrtoolError]]:
    pool: ProcessPoolExecutor | None = None
    for item in items:
        pool = pool or ProcessPoolExecutor(1, mp_context=context, initializer=_one_thread)
        try:
            yield item, pool.submit(_run, function, [item]).result()[0]
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = None
            yield item, ImageError("the decoder crashed on this file: it is damaged, or not what its first bytes say")
    if pool:
        pool.shutdown(wait=False)


def _one_thread() -> None:
    # Parallelism is over images; a library's own threads would only fight over the same processors.
    import signal

    import cv2

    cv2.setNumThreads(1)
    # Ctrl-C goes to the whole group of processes; the parent alone decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result | CxrtoolError]:
    results: list[Result | CxrtoolError] = []
    for item in chunk:
        try:
            results.append(function(item))
        except CxrtoolError as error:
            results.append(error)
        except MemoryError:
            results.append(ImageError("not enough memory to decode it"))
        except Exception as error:
            if os.environ.get("CXRTOOL_DEBUG"):
                raise
            # Decoders raise almost anything on a damaged file; one file must not end the run.
            results.append(ImageError(f"cannot be decoded: {type(error).__name__}: {error}".splitlines()[0][:300]))
    return results
