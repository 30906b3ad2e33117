"""What a step has done, item by item: how an interrupted run continues, and how a folder that grew costs little.

A record has the mark of all that its item depends on: the row, size and time of the files read, the options, the
versions. The journal of a finished output stays in it. When the output is made again, the files of the items whose mark
is still the same are copied from it, if they are what was written. They are copies, because a file with two names would
be changed under both, and they keep their time, so that the next step takes its items over, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO

from cxrtool.data.confinement import check_inside
from cxrtool.data.digests import FILES, entry_of, entry_of_file
from cxrtool.data.files import are_whole_pngs, atomic_path, sha256_file

JOURNAL = "journal.jsonl"
KEY, MARK = "key", "mark"
_THREADS, _AT_ONCE = 4, 256
"""Threads that copy files, and items that wait for them."""


class Lines:
    """A file of lines, which are read one by one by their places in it; in memory where it has no path."""

    def __init__(self, path: Path | None = None, *, to_write: bool = True) -> None:
        self._file: BinaryIO = path.open("a+b" if to_write else "rb") if path else BytesIO()
        self._lock = Lock()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its place."""
        place = self._file.seek(0)
        for line in self._file:
            yield place, line
            place += len(line)

    def at(self, place: int) -> bytes:
        """The line at a place; any thread may ask."""
        with self._lock:
            self._file.seek(place)
            return self._file.readline()

    def add(self, line: str) -> int:
        """Append a line, and return its place; it is there even if this process is killed later."""
        with self._lock:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(f"{line}\n".encode())
            self._file.flush()
            return place

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Records(Mapping[str, dict[str, Any]]):
    """The records of a journal by key; only their places in its file are in memory."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.places: dict[str, int] = {}

    @classmethod
    def of(cls, lines: Lines) -> Records:
        """All that are in a file."""
        found = cls(lines)
        for place, line in lines:
            # The last line may be incomplete if the process was killed.
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found.places[json.loads(line)[KEY]] = place
        return found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._read(key)[0]

    def marked(self, key: str, mark: str) -> dict[str, Any] | None:
        """The record of a key; None where it has none, or one with another mark."""
        record, found = self._read(key) if key in self.places else ({}, None)
        return record if found == mark else None

    def _read(self, key: str) -> tuple[dict[str, Any], str | None]:
        record: dict[str, Any] = json.loads(self.lines.at(self.places[key]))
        del record[KEY]
        return record, record.pop(MARK, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Former:
    """An earlier output, or an unfinished one, from which items are taken over.

    Attributes:
        digests: The entries of its files in `run.json`; None where it is unfinished: then its PNGs are checked for
            their size and end, as where a run continues.
        moved: Whether its files are of no other use, and are moved instead of copied.
    """

    folder: Path
    records: Records
    digests: Mapping[str, str] | None
    moved: bool = False

    @classmethod
    def of(
        cls, folder: Path, digests: Mapping[str, str] | None, name: str = JOURNAL, *, moved: bool = False
    ) -> Former | None:
        """Read its journal; None where it has none, or where that was changed afterwards."""
        try:
            if digests is not None and digests.get(name) != entry_of_file(folder / name):
                return None
            lines = Lines(folder / name, to_write=False)
        except OSError:
            return None
        return cls(folder, Records.of(lines), digests, moved)

    def take(self, key: str, mark: str, target: Path) -> dict[str, Any] | None:
        """Bring the files of an item below `target`, and return its record; None where something has changed."""
        record = self.records.marked(key, mark)
        if record is None:
            return None
        if self.moved:
            return record if self._move(record.get(FILES, {}), target) else None
        found = {}
        for name, size in record.get(FILES, {}).items():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:
                return None
            try:
                data, status = (self.folder / name).read_bytes(), (self.folder / name).stat()
            except OSError:
                return None
            known = self.digests.get(name) == entry_of(data) if self.digests is not None else _is_whole(data, size)
            if not known:
                return None
            found[target / name] = data, status
        for path, (data, status) in found.items():
            check_inside(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return record

    def _move(self, files: Mapping[str, int], target: Path) -> bool:
        places = [PurePosixPath(name) for name in files]
        if any(place.is_absolute() or ".." in place.parts for place in places):
            return False
        if not are_whole_pngs(self.folder, files):
            return False
        for name in files:
            check_inside(target / name)
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).replace(target / name)
        return True


def _is_whole(data: bytes, size: int) -> bool:
    return len(data) == size and data[-8:-4] == b"IEND"


class Journal:
    """The finished items of a run, one JSON line per record.

    Attributes:
        path: Its file; without one it is in memory.
        former: Earlier outputs, from which items are taken over.
        done: The records of a run that was interrupted.
        kept: The records that are of use to later runs: what was found, or added with a mark.
    """

    def __init__(self, path: Path | None = None, former: Sequence[Former] = ()) -> None:
        self.path, self.former = path, former
        self._lines = Lines(path)
        self.done, self.kept = Records.of(self._lines), Records(self._lines)
        if path and path.stat().st_size:
            self._lines.add("")

    def find(self, marks: Mapping[str, str]) -> tuple[Records, int]:
        """Keep the records of the items that need not be made: of the interrupted run, and of an earlier output.

        The files of the latter are copied beside the journal.

        Args:
            marks: The mark of each item, by its key.

        Returns:
            The records that are kept, also those that are added later; and how many of these items are of an earlier
            output.
        """
        folder = self.path.parent if self.path else Path()
        for key, mark in marks.items() if self.done else ():
            record = self.done.marked(key, mark)
            if record and are_whole_pngs(folder, record.get(FILES, {})):
                self.kept.places[key] = self.done.places[key]

        def take(key: str) -> dict[str, Any] | None:
            taken = (former.take(key, marks[key], folder) for former in self.former)
            return next((record for record in taken if record is not None), None)

        pending = iter([key for key in marks if key not in self.kept] if self.former else [])
        number = 0
        # Reading, hashing and writing release the interpreter's lock.
        with ThreadPoolExecutor(_THREADS) as pool:
            while some := list(islice(pending, _AT_ONCE)):
                for key, record in zip(some, pool.map(take, some), strict=True):
                    if record is not None:
                        self.add(key, record, marks[key])
                        number += 1
        return self.kept, number

    def add(self, key: str, record: Mapping[str, Any], mark: str = "") -> None:
        """Record that the item `key` is done, even if this process is killed later; with a mark, for later runs too."""
        place = self._lines.add(json.dumps({KEY: key, **({MARK: mark} if mark else {}), **record}))
        if mark:
            self.kept.places[key] = place

    def close(self) -> None:
        """Close its files."""
        for lines in (self._lines, *(former.records.lines for former in self.former)):
            lines.close()

    def write(self, target: Path) -> None:
        """Write the records that are of use to later runs, in the order of their keys."""
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            file.writelines(self._lines.at(self.kept.places[key]) for key in sorted(self.kept))


def is_journal(path: Path) -> bool:
    """Whether a file is a journal."""
    with path.open("rb") as file:
        return file.read(64).startswith(json.dumps({KEY: ""})[:-2].encode())


@dataclass(frozen=True)
class Marks:
    """The marks of items; `identity` is what the results of all of them depend on.

    With `verify` files are marked by their content, else by size and time.
    """

    identity: str
    verify: bool = False

    def of(self, *values: object, files: Iterable[Path | str] = ()) -> str:
        """The mark of an item that depends on some values and files.

        Of a path only the name counts where the content is compared; images of two folders may share size and time.
        """
        named = os.path.basename if self.verify else os.path.abspath
        marks = [[named(path), _state_of(path, self.verify)] for path in files]
        content = json.dumps([self.identity, values, marks], default=str)
        return hashlib.sha256(content.encode(errors="backslashreplace")).hexdigest()[:32]


def _state_of(path: Path | str, verify: bool) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return "missing"
    state = status.st_size, status.st_mtime_ns
    return _content_of(str(path), *state) if verify else f"{state[0]}:{state[1]}"


@lru_cache(None)
def _content_of(path: str, size: int, time: int) -> str:
    try:
        return sha256_file(Path(path))
    except OSError:
        return "unreadable"
