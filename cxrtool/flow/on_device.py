"""The networks of a chain on a GPU: workers send their inputs to the main process, which runs them there in batches.

A worker reads an image, does the steps before a network, and waits for its output as for a function. What several
workers ask for at a time is one batch. So every step stays a function of one image, and one process uses the GPU.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cxrtool.errors import CxrtoolError

if TYPE_CHECKING:
    import numpy as np
    import torch

    Run = Callable[[str, np.ndarray], np.ndarray]
    """From the folder of a part and inputs (B, S, S) to outputs (B, S, S), both float32."""

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 8
"""Images in a batch. A smaller one is filled up, so that an output does not depend on what else was asked for."""

_address: str | None = None


@contextlib.contextmanager
def serving(device: torch.device, run: Callable[[torch.device], Run]) -> Iterator[None]:
    """Run the networks of the functions from `served` on a device; on a CPU each worker runs them itself.

    Args:
        device: As `choose_device` gives it.
        run: Makes the function that runs a network on the device.
    """
    global _address
    if device.type == "cpu":
        yield
        return
    with Listener(None, "AF_UNIX", authkey=_key()) as listener:
        _address = str(listener.address)
        waiting: queue.SimpleQueue[tuple[Connection, str, np.ndarray]] = queue.SimpleQueue()
        over = threading.Event()
        accepting = threading.Thread(target=_accept, args=(listener, waiting, over), daemon=True)
        accepting.start()
        threading.Thread(target=_answer, args=(waiting, run(device)), daemon=True).start()
        try:
            yield
        finally:
            _address = None
            over.set()
            # A thread that still waits here takes what is meant for a later listener, if that has the same descriptor
            # and a signal makes it wait anew.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waking:
                waking.settimeout(1)
                waking.connect(str(listener.address))
            accepting.join(1)


def _key() -> bytes:
    """What this process and its workers share, and no other."""
    return bytes(multiprocessing.current_process().authkey)


def _accept(listener: Listener, waiting: queue.SimpleQueue[Any], over: threading.Event) -> None:
    def receive(connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                waiting.put((connection, *connection.recv()))

    with contextlib.suppress(OSError):
        while not over.is_set():
            # A worker may end while it introduces itself.
            with contextlib.suppress(EOFError, ConnectionError, multiprocessing.AuthenticationError):
                threading.Thread(target=receive, args=(listener.accept(),), daemon=True).start()


def _answer(waiting: queue.SimpleQueue[tuple[Connection, str, np.ndarray]], run: Run) -> None:
    while True:
        batch = [waiting.get()]
        with contextlib.suppress(queue.Empty):
            while len(batch) < AT_ONCE:
                batch.append(waiting.get_nowait())
        for folder in dict.fromkeys(folder for _, folder, _ in batch):
            asked = [(connection, values) for connection, name, values in batch if name == folder]
            try:
                found: Any = run_filled(partial(run, folder), [values for _, values in asked], AT_ONCE)
            except Exception as error:
                # The worker raises it, as where it runs the network itself.
                found = [error] * len(asked)
            for (connection, _), answer in zip(asked, found, strict=True):
                with contextlib.suppress(OSError):
                    connection.send(answer)


def run_filled(network: Callable[[np.ndarray], np.ndarray], inputs: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The outputs (n, …) of a network for n inputs, at most `count`, in a batch that is filled up with black ones.

    A batch of another size is computed differently, in the last digits.
    """
    import numpy as np

    shown = np.stack(inputs)
    filled = np.pad(shown, [(0, count - len(shown)), *[(0, 0)] * (shown.ndim - 1)])
    return network(filled)[: len(shown)]


def served(work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """A function for worker processes whose networks run on the device of `serving`, where there is one."""
    return work if _address is None else partial(_with_address, work=work, address=_address)


def _with_address(item: Item, *, work: Callable[[Item], Result], address: str) -> Result:
    global _address
    _address = address
    return work(item)


def ask(folder: str, values: np.ndarray) -> np.ndarray | None:
    """The output (S, S) of a network for an input (S, S), from the process with the device; None where there is none.

    Raises:
        CxrtoolError: The network cannot be run there.
    """
    if _address is None:
        return None
    connection = _connection(_address)
    connection.send((folder, values))
    try:
        answer = connection.recv()
    except EOFError:
        raise CxrtoolError("the process with the networks ended") from None
    if isinstance(answer, Exception):
        raise answer if isinstance(answer, CxrtoolError) else CxrtoolError(f"{Path(folder).name}: {answer}")
    return answer  # type: ignore[no-any-return]


@cache
def _connection(address: str) -> Connection:
    return Client(address, "AF_UNIX", authkey=_key())
