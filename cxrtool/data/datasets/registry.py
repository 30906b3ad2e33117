"""The registry of data sets: each module registers its adapter under the name for `prepare --dataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.datasets.record import Record, Request

Read = Callable[[Path, Request], Iterator[Record]]
"""Yields one record for each image of the source, and adds messages to the request."""

Mark = Callable[[Path], bool]
"""Whether a folder has the layout of the set, by names alone; only for the hint about a wrong `--dataset`."""


@dataclass(frozen=True)
class Adapter:
    """The reader of a data set, and the test of its layout."""

    read: Read
    mark: Mark | None = None


ADAPTERS: dict[str, Adapter] = {}
"""By name, in the order in which the help lists them."""


def adapter(name: str, mark: Mark | None = None) -> Callable[[Read], Read]:
    """Register the decorated function as the reader of the data set `name`."""

    def enter(read: Read) -> Read:
        ADAPTERS[name] = Adapter(read, mark)
        return read

    return enter
