"""The epochs of a training, written for a program that draws them while it runs; the training depends on none of it.

This module imports neither torch nor a tracker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.errors import CxrtoolError

if TYPE_CHECKING:
    from cxrtool.training.job import Row

Write = Callable[[Iterable["Row"]], None]
"""Writes epochs, each a row of a history."""


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    # A training that is resumed writes its first epochs again, so that no epoch is there twice.
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(folder)) as writer:

        def write(rows: Iterable[Row]) -> None:
            for row in rows:
                for name, value in row.items():
                    subset, _, what = name.partition("_")
                    if value is not None and name != "epoch":
                        # One panel for the losses of all subsets, and one for each other figure.
                        tag = f"{what}/{subset}" if what else name
                        writer.add_scalar(tag, value, int(row["epoch"] or 0))
            writer.flush()

        yield write


@dataclass(frozen=True)
class Tracker:
    """A program that draws trainings.

    Attributes:
        package: What it needs.
        open: Begins the record of one training in a folder, in place of an earlier one.
    """

    package: str
    open: Callable[[Path], AbstractContextManager[Write]]


TRACKERS = {"tensorboard": Tracker("tensorboard", _tensorboard)}


def require(name: str) -> None:
    """Check that the package of a tracker is there; a `CxrtoolError` if not."""
    if find_spec(TRACKERS[name].package) is None:
        raise CxrtoolError(
            f"--track {name} needs {TRACKERS[name].package}, which is not installed", "pip install 'cxrtool[track]'"
        )
