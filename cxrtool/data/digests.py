"""Digests of the files of a folder that cxrtool wrote, in `files` of its `run.json`, and their check.

An entry is `BYTES SHA256` under a path relative to the folder. A file is checked where it is read, in one place for
tables and one for images. A file without an entry, of an earlier version or put there by the user, is not checked.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cxrtool.data.file_names import RUN_FILE
from cxrtool.data.files import is_stream, sha256_file
from cxrtool.data.structured import load_json
from cxrtool.errors import ChangedError

FILES = "files"
_LEVELS = 3
"""How far above a file its `run.json` is looked for: `parts/NAME/fitted_on.csv` has the most."""
_THREADS, _AT_ONCE = 4, 256
_FOLD = re.compile(r"r\d+f\d+")


def entry_of(content: bytes | str) -> str:
    """The entry of a file with this content, written by `atomic_write`.

    >>> entry_of(b"")[:12]
    '0 e3b0c44298'
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def entry_of_file(path: Path | str) -> str:
    """The entry of a file."""
    return f"{os.stat(path).st_size} {sha256_file(Path(path))}"  # noqa: PTH116


def entries_of(folder: Path, *without: str) -> dict[str, str]:
    """The entries of all files in a folder, without hidden ones, steps of their own below it, and some by name."""
    names = (name for name in _files(folder) if name.rpartition("/")[2] not in without)
    found: dict[str, str] = {}
    # Hashing releases the interpreter's lock. All at once would be a kilobyte a file.
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(names, _AT_ONCE)):
            found.update(zip(some, pool.map(entry_of_file, [folder / name for name in some]), strict=True))
    return found


def _files(folder: Path, above: str = "") -> Iterator[str]:
    found, folders = list[str](), set[str]()
    with os.scandir(folder / above) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == RUN_FILE or entry.is_symlink():
                continue
            name = above + entry.name
            if entry.is_dir():
                folders.add(name)
            elif not entry.is_file():
                continue
            found.append(name)
    for name in sorted(found):
        if name not in folders:
            yield name
        elif not (folder / name / RUN_FILE).exists():
            yield from _files(folder, f"{name}/")


@dataclass(frozen=True)
class _Record:
    """What a `run.json` says of the files of its folder.

    Attributes:
        written: Its modification time in nanoseconds: it is written after them.
    """

    written: int
    files: Mapping[str, str] = field(default_factory=dict)
    made_by: str = ""


_records: dict[Path, tuple[tuple[int, int], _Record | None]] = {}
_checked: set[tuple[str, int, int, str]] = set()


def _record_in(folder: Path) -> _Record | None:
    path = folder / RUN_FILE
    try:
        status = path.stat()
    except OSError:
        return None
    state = status.st_size, status.st_mtime_ns
    if path not in _records or _records[path][0] != state:
        _records[path] = state, _read(path, status.st_mtime_ns)
    return _records[path][1]


def _read(path: Path, written: int) -> _Record | None:
    try:
        content = load_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or "command" not in content:
        return None
    files, words = content.get(FILES), [str(word) for word in content.get("argv") or []]
    command = str(content["command"])
    words = words[words.index(command) :] if command in words else [command]
    return _Record(written, files if isinstance(files, dict) else {}, shlex.join(["cxrtool", *words]))


def _find(path: Path) -> tuple[_Record, Path] | None:
    """The record of the nearest folder above a file that cxrtool wrote, and the folder."""
    absolute = Path(os.path.normpath(path.absolute()))
    for folder in list(absolute.parents)[:_LEVELS]:
        if (record := _record_in(folder)) is not None:
            return record, folder
    return None


def is_of_step(path: Path) -> bool:
    """Whether a file is in a folder that cxrtool wrote."""
    return _find(Path(path)) is not None


def check(path: Path, data: bytes | None = None, *, by_time: bool = False) -> None:
    """Compare a file with its entry; once for each size and time of the file in a process.

    Args:
        path: Any file; without an entry nothing is checked.
        data: Its content, if it has been read.
        by_time: A file of the right size that is not newer than the entry is taken as unchanged, which costs nothing.
            For images: their formats have checksums of their own, and an exchanged one has another size or time.

    Raises:
        ChangedError: It is another one, shorter, or missing.
    """
    path = Path(path)
    if is_stream(path) or (found := _find(path)) is None:
        return
    record, folder = found
    entry = record.files.get(Path(os.path.normpath(path.absolute())).relative_to(folder).as_posix())
    if not isinstance(entry, str):
        return
    size, _, digest = entry.partition(" ")
    try:
        status = path.stat()
    except FileNotFoundError:
        raise _error(path, record, "it is missing") from None
    except OSError:
        # Who reads it has words for that.
        return
    if by_time and str(status.st_size) == size and status.st_mtime_ns <= record.written:
        return
    key = (str(path.absolute()), status.st_size, status.st_mtime_ns, entry)
    if key in _checked:
        return
    if str(status.st_size) != size:
        raise _error(path, record, f"it has {status.st_size:,} bytes instead of {int(size):,}")
    if (hashlib.sha256(data).hexdigest() if data is not None else sha256_file(path)) != digest:
        raise _error(path, record, "its content is another")
    _checked.add(key)


def _error(path: Path, record: _Record, found: str) -> ChangedError:
    command = record.made_by.split()[1]
    again = f"{record.made_by} --force"
    if command in ("train", "fit") and _FOLD.fullmatch(path.absolute().parent.name) and "--only" not in again:
        again += f" --only {path.absolute().parent.name}"
    return ChangedError(
        f"{path}: expected the file as `cxrtool {command}` wrote it, found it changed: {found}",
        f"make it again: `{again}`; a table that you edited on purpose needs another name",
    )


def altered(folder: Path) -> str | None:
    """A file of a folder, or of a folder in it, that is missing or not as it was written, or None.

    A file of the right size that is not newer than the entry is taken as unchanged.
    """
    inside = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    for place in (folder, *inside):
        if (record := _record_in(place)) is None:
            continue
        for name, entry in record.files.items():
            try:
                status = (place / name).stat()
                # Of most files this is all: looking for the record of each would take ten times as long.
                if str(status.st_size) != str(entry).partition(" ")[0] or status.st_mtime_ns > record.written:
                    check(place / name)
            except (ChangedError, FileNotFoundError):
                return (place / name).relative_to(folder).as_posix()
            except OSError:
                continue
    return None
