"""Files that are whole or not there: atomic writes, locks, digests."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from cxrtool import stopping
from cxrtool.data.confinement import also_in, check_inside
from cxrtool.data.leftovers import remove_temporaries, temporary_name
from cxrtool.errors import InputError, OutputError
from cxrtool.options import did_you_mean


@contextlib.contextmanager
def atomic_path(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error, it replaces `path`.

    The temporary file is in the same folder (a rename across file systems is a copy) and keeps the suffix, because
    writers choose the format by it. It is flushed to the disk before the rename, so that after a crash there is either
    the old content or the new, never half of one. A link is followed; a device or a pipe, such as `/dev/null` or
    `/dev/stdout`, is written to and never replaced.

    Args:
        path: The file.
        needed: Its size in bytes, where it is known.

    Raises:
        OutputError: No space, no permission, no such folder, or outside of the folder that is being built.
    """
    path = Path(path)
    check_inside(path)
    with saying_what_fails(path, needed=needed):
        stream = path.exists() and not path.is_file() and not path.is_dir()
        target = path if stream else Path(os.path.realpath(path))
        folder = Path(tempfile.gettempdir()) if stream else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
        temporary = folder / temporary_name(path.name, path.suffix)
        stopping.unfinished.add(str(temporary))
        handle = None
        try:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            # It shows another machine that the file is in use.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield temporary
            if stream:
                path.write_bytes(temporary.read_bytes())
                return
            _flush(temporary)
            # A file system without permissions, as on a memory stick, has none to set.
            with contextlib.suppress(PermissionError):
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
            stopping.unfinished.discard(str(temporary))
            if handle is not None:
                os.close(handle)


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield a folder of this user in `$TMPDIR` that is removed after the block; `purpose` is part of its name."""
    parent = Path(tempfile.gettempdir())
    remove_temporaries(parent)
    folder = parent / temporary_name(f"cxrtool-{purpose}", "")
    stopping.unfinished.add(str(folder))
    try:
        folder.mkdir(mode=0o700)
        with also_in(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        stopping.unfinished.discard(str(folder))


def no_such(path: Path, what: str = "file") -> str:
    """The message for a path that does not exist; it names the nearest of those that are there.

    >>> no_such(Path("/nowhere/metdata.csv"))
    '/nowhere/metdata.csv: no such file'
    """
    near = ""
    with contextlib.suppress(OSError):
        near = did_you_mean(path, (str(path.parent / entry.name) for entry in path.parent.iterdir()), 0.85)
    return f"{path}: no such {what}{near}"


def encoded(text: str) -> bytes:
    """A text as it is written, in UTF-8: a file name that is none has lone surrogates, which are written as escapes."""
    return text.encode(errors="backslashreplace")


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all."""
    content = encoded(data) if isinstance(data, str) else data
    with atomic_path(path, len(content)) as temporary:
        temporary.write_bytes(content)


NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.EIO,
    errno.EBUSY,
)


@contextlib.contextmanager
def saying_what_fails(path: Path, option: str = "-o", needed: int | None = None) -> Iterator[None]:
    """Turn an operating system's error in writing below `path` into one line that names the path and the free bytes.

    Args:
        path: What is written.
        option: The option by which another path can be chosen.
        needed: Its size in bytes, where it is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise OutputError(
                f"cannot write {path}: it is larger than a file may be here",
                "`ulimit -f` shows the limit of this shell; what was finished before is kept",
            ) from error
        if error.errno in NO_SPACE:
            size = f" of {needed:,} bytes" if needed else ""
            raise OutputError(
                f"no space left to write {path}{size}: {_free(path)}",
                f"free some space or choose another {option}; what was finished before is kept",
            ) from error
        if error.errno in NOT_WRITABLE:
            # An input that cannot be read may fail inside the same block; that is not an error of the output.
            where = Path(os.path.realpath(error.filename if isinstance(error.filename, str) else path))
            target = Path(os.path.realpath(path))
            if not (where.is_relative_to(target.parent) or target.is_relative_to(where)):
                raise InputError(f"{error.filename}: {error.strerror}") from error
            raise OutputError(f"cannot write {path}: {error.strerror}", f"choose another path with {option}") from error
        raise


def _free(path: Path) -> str:
    existing = next((p for p in (path, *path.absolute().parents) if p.exists()), Path("/"))
    return f"{shutil.disk_usage(existing).free:,} bytes are free on its disk"


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, option: str = "-o") -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; the operating system frees it when the process dies.

    `option` is the one by which another path can be chosen.

    Raises:
        OutputError: `wait` is false and another process holds it.
    """
    while True:
        with _open_lock(path, option) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise OutputError(
                    f"another cxrtool is writing here: {path} is locked", "wait for it, or stop it"
                ) from error
            except OSError as error:
                # Some shared file systems of clusters have no locks at all; refusing to work there helps nobody.
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            # The process that held the lock before may have removed the file: a lock on a removed file has no effect.
            try:
                same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:
                same = False
            if same:
                stopping.unfinished.add(str(path))
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                    stopping.unfinished.discard(str(path))
                return


def _open_lock(path: Path, option: str) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except FileNotFoundError as error:
        # Its file system takes no new files, as /proc.
        raise OutputError(
            f"cannot write in {path.parent}: no files can be made there", f"choose another path with {option}"
        ) from error


STDIN = Path("-")
"""The name of standard input on a command line."""

_DESCRIPTORS = ("/dev/fd", "/proc/self/fd")
"""Where a shell puts the pipe of `<(COMMAND)`."""

_streams: dict[object, bytes] = {}


def is_stream(path: Path | str) -> bool:
    """Whether a path is standard input (`-`) or the pipe of `<(COMMAND)`, which can be read only once.

    A named pipe that somebody left in a folder is none: opening it could wait forever.
    """
    # Not by `Path`, which is slow for a million images.
    name = os.fspath(path)
    if name == str(STDIN):
        return True
    try:
        return os.path.dirname(name) in _DESCRIPTORS and stat.S_ISFIFO(os.stat(name).st_mode)  # noqa: PTH116, PTH120
    except OSError:
        return False


def read_stream(path: Path | str) -> bytes:
    """The content of a stream, which is kept, so that it can be asked for again; an `InputError` where it is closed."""
    path = Path(path)
    if path == STDIN:
        if sys.stdin is None:
            raise InputError("standard input: expected a table, found it closed")
        if sys.stdin not in _streams:
            _streams[sys.stdin] = sys.stdin.buffer.read()
        return _streams[sys.stdin]
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    if key not in _streams:
        _streams[key] = path.read_bytes()
    return _streams[key]


def read_bytes(path: Path) -> bytes:
    """The content of a file or of a stream."""
    return read_stream(path) if is_stream(path) else path.read_bytes()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file, or of a stream, as hexadecimal text."""
    if is_stream(path):
        return hashlib.sha256(read_stream(path)).hexdigest()
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_whole_png(path: Path, size: int) -> bool:
    """Whether a PNG is complete: it has `size` bytes and an end chunk."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) != size:
                return False
            file.seek(-8, 2)
            return file.read().startswith(b"IEND")
    except OSError:
        return False


def are_whole_pngs(target: Path, written: Mapping[str, int]) -> bool:
    """Whether all PNGs are complete; `written` gives the size in bytes of each name."""
    return all(is_whole_png(target / name, size) for name, size in written.items())


def existing(path: Path) -> Path | None:
    """The path where a file has this name, in whichever Unicode form the file system has it; None where none has.

    macOS writes an accent as a mark of its own (NFD), other systems in one character with its letter (NFC), and both
    look the same.
    """
    if path.exists():
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    found = next((form for form in forms if form != path and form.exists()), None)
    if found is None and not str(path).isascii():
        # Folders above may have the other form.
        here = Path(path.anchor) if path.is_absolute() else Path()
        for part in path.parts[1:] if path.is_absolute() else path.parts:
            steps = (here / unicodedata.normalize(form, part) for form in ("NFC", "NFD"))
            step = here / part if (here / part).exists() else next((one for one in steps if one.exists()), None)
            if step is None:
                return None
            here = step
        found = here
    return found
