"""The cache of decoded images: where it is, what is in it, and how it is emptied.

It is a folder with a folder for each store (`training.store`), whose name is a digest. Only these are ever listed or
removed, so a cache may also be in a folder that has other content.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.confinement import allow
from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.structured import load_json
from cxrtool.errors import InputError, OutputError

INDEX, IMAGES = "index.json", "images.npy"
"""The files of a store; until the index is there, it is unfinished."""

TAG = "CACHEDIR.TAG"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache made by cxrtool.\n"
"""The mark of caches, by which programs for backups leave them out (bford.info/cachedir)."""

_STORE = re.compile(r"[0-9a-f]{24}")
_FILE = re.compile(rf"{re.escape(INDEX)}|{re.escape(IMAGES)}|\.({re.escape(INDEX)}|{re.escape(IMAGES)})\..+")
"""The files of a store, and the temporary ones of a process that was killed."""


def default_cache() -> Path:
    """Where decoded images are kept: a folder of this user on the local disk of a scheduler's job, or in `$TMPDIR`."""
    given = os.environ.get("CXRTOOL_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir()) / f"cxrtool-cache-{os.getuid()}"


def open_cache(given: Path | None) -> Path:
    """The cache of `--cache`, or that of this user; it is created where it does not exist, for this user alone.

    Raises:
        OutputError: It cannot be created, or in its place is a folder to which other users may write.
    """
    folder = given or default_cache()
    with saying_what_fails(folder, "--cache"):
        if not folder.exists():
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except FileNotFoundError as error:
                # Its file system takes no new folders, as /proc.
                raise OutputError(f"cannot make {folder}", "choose another place: --cache FOLDER") from error
            (folder / TAG).write_text(SIGNATURE, encoding="utf-8")
        elif given is None and not os.environ.get("CXRTOOL_CACHE"):
            # Everybody may write to /tmp, and what is in a cache is trusted.
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                raise OutputError(
                    f"{folder}: expected a folder of yours for decoded images, found one of somebody else",
                    "choose another place: --cache FOLDER",
                )
            if stat.S_IMODE(status.st_mode) & 0o077:
                folder.chmod(0o700)
    allow(folder)
    return folder


@dataclass(frozen=True)
class Entry:
    """The decoded images of one manifest at one size.

    Attributes:
        size: In bytes, on the disk.
        files: Their number.
        used: When it was last used, in seconds since 1970.
        images: None where it is unfinished.
        made_by: The command line; empty where it is not known.
    """

    path: Path
    size: int
    files: int
    used: float
    images: int | None
    made_by: str


def entries_of(folder: Path) -> list[Entry]:
    """What is in a cache, the least recently used first; nothing where the folder does not exist.

    Raises:
        InputError: It is no cache.
    """
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a cache of decoded images, found a file")
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
        found = [entry for name in names if _STORE.fullmatch(name) and (entry := _read(folder / name))]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    if names and not found and not (folder / TAG).is_file():
        raise InputError(
            f"{folder}: expected a cache of decoded images, found a folder with {names[0]} and no such images",
            "`cxrtool cache list` without --cache shows the cache that is used by default",
        )
    return sorted(found, key=lambda entry: entry.used)


def _read(path: Path) -> Entry | None:
    """The entry of a folder; None where it has other files than those of a store."""
    if path.is_symlink() or not path.is_dir():
        return None
    files = list(path.iterdir())
    if not all(_FILE.fullmatch(file.name) and file.is_file() and not file.is_symlink() for file in files):
        return None
    states = [file.stat() for file in files]
    images, made_by = None, ""
    # A process that was killed leaves a store without an index.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = load_json(path / INDEX)
        images, made_by = len(content["sha256"]), str(content.get("made_by", ""))
    used = max((state.st_mtime for state in states), default=path.stat().st_mtime)
    return Entry(path, sum(state.st_blocks * 512 for state in states), len(files), used, images, made_by)


def remove(entry: Entry) -> bool:
    """Remove the files of an entry; false where another process is writing them.

    A process that still reads the images keeps them until it ends.
    """
    with saying_what_fails(entry.path):
        try:
            with locked(entry.path.parent / f".{entry.path.name}.lock", wait=False):
                for file in entry.path.iterdir():
                    if _FILE.fullmatch(file.name):
                        file.unlink()
                entry.path.rmdir()
        except OutputError:
            return False
    return True
