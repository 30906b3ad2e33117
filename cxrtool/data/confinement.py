"""Writing stays inside: while a step's folder is built, no file is opened for writing anywhere else.

This is the second wall. The first one is that names are checked where a table is read (`tables.ids`); this one holds
whatever a path is made of, and knows links. Outside of a build, and for callers from Python, nothing is confined.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cxrtool.errors import OutputError

_confined: list[str] = []
"""The folders of the builds in progress, as real paths; where there is none, nothing is confined."""

_allowed: list[str] = []
"""Other folders of this program, such as its cache, to which a build may write, too."""


@contextlib.contextmanager
def confined_to(folder: Path) -> Iterator[None]:
    """Allow writing below `folder`, and below the folders of the blocks around this one; refuse all other paths."""
    with _listed(folder, _confined):
        yield


@contextlib.contextmanager
def also_in(folder: Path) -> Iterator[None]:
    """Allow writing below another folder of this program, such as a temporary one."""
    with _listed(folder, _allowed):
        yield


def allow(folder: Path) -> None:
    """Allow writing below another folder of this program, such as its cache, from now on."""
    real = os.path.realpath(folder)
    if real not in _allowed:
        _allowed.append(real)


@contextlib.contextmanager
def _listed(folder: Path, folders: list[str]) -> Iterator[None]:
    real = os.path.realpath(folder)
    folders.append(real)
    try:
        yield
    finally:
        folders.remove(real)


def confinement() -> tuple[list[str], list[str]]:
    """What holds now, for `confine` in another process."""
    return list(_confined), list(_allowed)


def confine(confined: list[str], allowed: list[str]) -> None:
    """Let the same hold in this process."""
    _confined[:], _allowed[:] = confined, allowed


def check_inside(path: Path | str) -> None:
    """Check a path before it is opened for writing, also where `..` or a link would lead.

    Raises:
        OutputError: It is outside of the folders that may be written to.
    """
    if not _confined:
        return
    real = os.path.realpath(path)
    if not any(_is_below(real, folder) for folder in (*_confined, *_allowed)):
        raise OutputError(
            f"{path}: expected a file inside the output folder, found that it would be written to {real}",
            "is an id of the table a path, or is there a link in the output folder? rename the one, remove the other",
        )


def is_inside(path: Path | str, folder: Path) -> bool:
    """Whether a path is below a folder or is this folder, wherever `..` and links lead; a loop of links leads nowhere.

    >>> is_inside("/data/../etc/passwd", Path("/data")), is_inside("/data/a.png", Path("/data"))
    (False, True)
    """
    real, above = os.path.realpath(path), os.path.realpath(folder)
    return real == above or _is_below(real, above)


def _is_below(real: str, folder: str) -> bool:
    return real.startswith(folder.rstrip(os.sep) + os.sep)


def leading_out(folder: Path) -> Path | None:
    """A link directly in a folder that leads out of it, if there is one."""
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        links = [entry.path for entry in entries if entry.is_symlink()]
    return next((Path(link) for link in links if not is_inside(link, folder)), None)
