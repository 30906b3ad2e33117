"""What a process leaves behind when it is killed: the names of temporaries, whose they are, and their removal.

| name | what it is | who may remove it |
| --- | --- | --- |
| `.NAME.MACHINE-PID-START-N.tmp.SUFFIX` | a file that is being written | anybody, once its process has ended |
| `.NAME.lock` | the lock of an output; the operating system frees it with its process | who gets the lock |
| `.NAME.DIGEST.partial`, `.NAME.new`, `.NAME.old` | a folder before and after its final name | who has the lock |
| `.NAME.DIGEST.3of10.partial`, `.NAME.3of10.lock` | what `--part 3/10` puts aside, and its lock | likewise |
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]+)-([0-9]+)-[0-9]+\.tmp(\.[^.]{1,19})?", re.DOTALL)

_ABANDONED = 3600
"""Seconds without a change after which a temporary of another machine is removed, if it is not locked either."""

_numbers = itertools.count()
_searched: set[tuple[int, str]] = set()


def temporary_name(name: str, suffix: str) -> str:
    """The name of a temporary beside `name`, which tells which process it belongs to."""
    pid = os.getpid()
    start = name.encode(errors="ignore")[:80].decode(errors="ignore")
    suffix = suffix if re.fullmatch(r"\.[\w-]{1,19}", suffix, re.ASCII) else ""
    return f".{start}.{_machine()}-{pid}-{_started(pid) or 0}-{next(_numbers)}.tmp{suffix}"


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that was not finished.

    >>> is_temporary(".a.csv.0123abcd-17-1234-0.tmp.csv"), is_temporary(".a.csv.tmp")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(*folders: Path) -> None:
    """Remove the temporaries that killed processes left in folders and in `$TMPDIR`; a process searches each once.

    Those of a living process stay, also of one on another machine that shares the folder. The number of a process
    alone does not identify it, because the system uses numbers again; its start is part of the name, too.
    """
    for folder in (*folders, Path(tempfile.gettempdir())):
        if (os.getpid(), str(folder)) in _searched:
            continue
        _searched.add((os.getpid(), str(folder)))
        with contextlib.suppress(OSError):
            for entry in [entry for entry in os.scandir(folder) if is_temporary(entry.name)]:
                with contextlib.suppress(OSError):
                    if not _is_alive(entry):
                        remove(entry.path)


def remove(path: str | Path) -> None:
    """Remove a file, a link, or a folder with its content; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108


def _is_alive(entry: os.DirEntry[str]) -> bool:
    """Whether the process that made a temporary may still be running."""
    machine, pid, started = _TEMPORARY.fullmatch(entry.name).group(1, 2, 3)  # type: ignore[union-attr]
    if machine == _machine():
        return _runs(int(pid), int(started))
    # The process is on another machine, or was before this one was started again.
    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
    if age < _ABANDONED or not entry.is_file(follow_symlinks=False):
        return True
    handle = os.open(entry.path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _runs(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to somebody else.
        pass
    now = _started(pid)
    return now is None or now == started


@cache
def _machine() -> str:
    """What tells numbers of processes apart: the machine, its last start, and the container."""
    marks = [os.uname().nodename]
    with contextlib.suppress(OSError):
        marks += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; 0 where it has ended, None where nobody can tell."""
    try:
        # The name of the program, in brackets, may have blanks and brackets in it.
        state, *values = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return 0 if state in "ZX" else int(values[18])
    except (OSError, ValueError, IndexError):
        return None
