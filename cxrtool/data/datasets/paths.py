"""`list`: a text with the path of one image on each line, such as `find` or `ls` print it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets.folder import may_be_image
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.datasets.table import PATHS
from cxrtool.data.files import existing, is_stream, read_bytes
from cxrtool.data.tables.parquet import is_parquet
from cxrtool.errors import InputError, count_of

SUFFIX = ".txt"


def is_list(source: Path) -> bool:
    """Whether a stream or a .txt file is a list of paths, and no table, whose header has a column of files.

    Raises:
        InputError: The stream is closed.
    """
    if not is_stream(source) and not (source.suffix.lower() == SUFFIX and source.is_file()):
        return False
    data = read_bytes(source)
    if is_parquet(source, data):
        return False
    first = next(iter(data.decode("utf-8-sig", "replace").splitlines()), "")
    delimiter = max((",", ";", "\t"), key=first.count)
    return not {cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])} & set(PATHS)


@adapter("list")
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every image of the list, in its order and only once, without a label; other files are skipped.

    Relative paths are taken from the folder of the list; those of a stream from the working directory. With names that
    contain line breaks, paths end with a zero byte, as `find -print0` writes them. A path that does not exist is
    yielded, too, so that it is rejected with a reason.

    Raises:
        InputError: The stream is closed, or the file cannot be read.
    """
    try:
        text = os.fsdecode(read_bytes(source).removeprefix(b"\xef\xbb\xbf"))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from error
    folder = Path() if is_stream(source) else source.parent
    seen: set[str] = set()
    again: list[str] = []
    for line in text.split("\0") if "\0" in text else text.split("\n"):
        name = line.removesuffix("\r")
        if not name.strip():
            continue
        # A list that was written by hand may have blanks around a path.
        path = existing(folder / name) or existing(folder / name.strip()) or folder / name
        key = os.path.abspath(path)  # noqa: PTH100
        if key in seen:
            again.append(name)
            continue
        seen.add(key)
        if may_be_image(path.name):
            yield Record(path, {}, name)
        else:
            request.skipped.append(path)
    if again:
        request.remarks.append(listed_again(again))


def listed_again(paths: list[str]) -> str:
    """The remark on images that were given before."""
    return f"used once although given again: {count_of(len(paths), 'path')}, such as {paths[0]}"
