"""The register of data sets: the file of each enters itself, with the name that `prepare --dataset` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.datasets.record import Record, Request

Read = Callable[[Path, Request], Iterator[Record]]
"""Yields one record an image of the source, and tells the request what else the user should know."""

Mark = Callable[[Path], bool]
"""Whether a folder is laid out as the set is, by names alone; only for the hint when another set was asked for."""


@dataclass(frozen=True)
class Adapter:
    """What is known of the layout of a data set."""

    read: Read
    mark: Mark | None = None


ADAPTERS: dict[str, Adapter] = {}
"""By name, in the order in which the help lists them."""


def adapter(name: str, mark: Mark | None = None) -> Callable[[Read], Read]:
    """Enter what is decorated as the reader of a data set.

    Args:
        name: The name of the data set.
        mark: By what its layout is known.
    """

    def enter(read: Read) -> Read:
        ADAPTERS[name] = Adapter(read, mark)
        return read

    return enter
